# SPDX-License-Identifier: Apache-2.0
"""Controls of the confounds: networks of kappa's scale or widths whose nodes it did not choose."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_pruning.networks import build
from experiments.pl_pruning.settings import Network
from plprune.functional import functional
from plprune.models.layers import activation_named
from plprune.nodes import expand


def halved(params: Any) -> Any:
    """Every kernel and embedding at half of its initial size; vectors, such as biases, stay."""
    return jax.tree.map(lambda leaf: leaf / 2 if leaf.ndim > 1 else leaf, params)


def fresh(network: Network, keep: float, case: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A narrow network with weights of its own, as the first nodes of the wide one."""
    sizes = dict(network.sizes)
    narrow = {"hidden": tuple(round(keep * width) for width in sizes["hidden"])}
    small = Network(network.kind, tuple((sizes | narrow).items()), network.exclude)
    params = functional(build(small, case.shape, jax.random.fold_in(case.gating_key, 1))).params
    kept = {
        name: np.arange(size) < width
        for (name, size), width in zip(case.dense.sizes.items(), narrow["hidden"], strict=True)
    }
    return expand(params, case.dense.groups, kept), kept


def shares(keep: float, case: Any, how: str) -> dict[str, float]:
    """Of each layer's nodes, from 3/2 of `keep` to 1/2 ("tapered") or the other way ("flared")."""
    factors = np.linspace(1.5, 0.5, len(case.dense.sizes))
    factors = factors if how == "tapered" else factors[::-1]
    return {
        name: min(1.0, keep * float(factor))
        for name, factor in zip(case.dense.sizes, factors, strict=True)
    }


def matched(network: Network, choice: Any, model: Any, case: Any) -> Any:
    """The parameters of `choice` with every layer scaled to the activations of `model`'s.

    Kernels are scaled from the first layer to the last, so that the root mean square of what each
    layer adds up, over the open nodes and the probe, is that of `model`'s network.
    """
    inputs = case.data.inputs.reshape(len(case.data.inputs), -1)
    activation = activation_named(dict(network.sizes)["activation"])
    goals = _sizes(model.params, model.keep, inputs, activation)
    factors = np.ones(len(goals))
    for layer, goal in enumerate(goals):
        params = _with_factors(choice.params, factors)
        factors[layer] = goal / _sizes(params, choice.keep, inputs, activation)[layer]
    return _with_factors(choice.params, factors)


def _sizes(params, keep, inputs, activation) -> list[float]:
    """Root mean square over open nodes of what each layer adds up."""
    found, x = [], inputs
    for name in _layers(params):
        added = jnp.matmul(x, params[name]["kernel"]) + params[name]["bias"][None]
        count = int(np.sum(keep[name])) if name in keep else added.shape[1]
        found.append(float(jnp.sqrt(jnp.sum(added**2) / (len(added) * count))))
        x = activation(added)
    return found


def _with_factors(params, factors):
    scaled = dict(params)
    for name, factor in zip(_layers(params), factors, strict=True):
        layer = params[name]
        scaled[name] = {**layer, "kernel": layer["kernel"] * jnp.float32(factor)}
    return scaled


def _layers(params):
    return (*sorted(name for name in params if name != "output"), "output")
