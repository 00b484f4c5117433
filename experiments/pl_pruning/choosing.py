# SPDX-License-Identifier: Apache-2.0
"""How each method chooses the nodes to keep.

Controls of the confounds have kappa's scale or widths, and nodes that it did not choose.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_pruning.gating import gate_before_training, gate_while_training, score_of
from experiments.pl_pruning.measures import hessian_norm
from experiments.pl_pruning.methods import METHODS, Control
from experiments.pl_pruning.networks import build
from experiments.pl_pruning.problem import Choice, Problem, all_open, small_of, untrained
from experiments.pl_pruning.settings import Config, Network, Regime
from experiments.pl_pruning.trainer import calibrated
from plprune.functional import functional
from plprune.models.layers import activation_named
from plprune.nodes import expand, keep_top, mask
from plprune.scores import Probe

_POWERS, _BISECTIONS = 3.0, 12  # Factors from 1/8 to 8, to .1 %.


def choose(
    config: Config, regime: Regime, method: str, keep: float, rate: float, problem: Problem
) -> Choice:
    """Gate before training, or while the first `regime.freeze_at` steps are taken.

    Args:
      config: The experiment.
      regime: Says which of the two.
      method: One of `methods.METHODS`.
      keep: The fraction of nodes to keep.
      rate: Learning rate of the steps.
      problem: The seed's data, dense network and keys.
    """
    by = METHODS[method].by
    if isinstance(by, Control):
        return _control(config, regime, by, keep, rate, problem)
    if regime.period:
        return gate_while_training(config, regime, by, keep, rate, problem)
    if by is None:
        return untrained(problem, problem.params, all_open(problem.dense), 0.0)
    return gate_before_training(config, regime, by, keep, problem)


def kept_share(keep: dict[str, np.ndarray]) -> float:
    """The fraction of all prunable nodes that is kept."""
    return sum(int(k.sum()) for k in keep.values()) / sum(len(k) for k in keep.values())


def _control(config, regime, by: Control, keep, rate, problem: Problem) -> Choice:
    """What `methods.Control` says of each change."""

    def chosen(method, problem=problem):
        return choose(config, regime, method, keep, rate, problem)

    if by.change == "fresh":
        return untrained(problem, *fresh(config.network, keep, problem), 0.0)
    if by.change == "halved":
        return chosen(by.of, _with_halved_kernels(problem))
    if by.change == "redrawn":
        return _redrawn(config, chosen(by.of), problem)
    if by.change == "matched":
        return _with_norm(config, regime, chosen(by.of), chosen("kappa"), problem)
    if by.change == "scaled":
        base, model = chosen(by.of), chosen("kappa")
        params = matched(config.network, base, model, problem)
        return base._replace(params=params, seconds=model.seconds, gating_seconds=model.seconds)
    if by.change == "widths":
        widths = chosen("kappa_global")
        shares = {name: float(kept.mean()) for name, kept in widths.keep.items()}
        return _at_shares(by.of, problem, shares, widths.seconds)
    return _at_shares(by.of, problem, spread_shares(keep, problem, by.change), 0.0)


def _with_halved_kernels(problem: Problem) -> Problem:
    params = halved(problem.params)
    model = calibrated(problem.trainer, params, problem.state.model, problem.data)
    return problem._replace(params=params, state=problem.state._replace(model=model))


def _redrawn(config: Config, choice: Choice, problem: Problem) -> Choice:
    """The same nodes of a network with other initial weights."""
    key = jax.random.fold_in(problem.gating_key, 2)
    drawn = functional(build(config.network, problem.shape, key)).params
    return choice._replace(params=mask(drawn, problem.dense.groups, choice.keep))


def _with_norm(config: Config, regime: Regime, choice: Choice, model: Choice, problem) -> Choice:
    """`choice` with every kernel times one factor: its Hessian's norm becomes that of `model`."""
    small = small_of(config, regime, choice, problem)
    other = small_of(config, regime, model, problem)
    goal = hessian_norm(other.trainer, other.first, problem.data)

    def excess(power):
        params = _with_kernels(small.first.params, 2.0**power)
        return hessian_norm(small.trainer, small.first._replace(params=params), problem.data) - goal

    power = _crossing(excess, -_POWERS, _POWERS)
    params = _with_kernels(choice.params, 2.0**power)
    seconds = choice.seconds + model.seconds
    return choice._replace(
        params=params, seconds=seconds, gating_seconds=seconds, gating_flops=model.gating_flops
    )


def _crossing(function, low: float, high: float) -> float:
    """Where an increasing function is zero, by bisection; an end where it is zero nowhere."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return (low + high) / 2


def _at_shares(method, problem, shares: dict[str, float], seconds: float) -> Choice:
    """The nodes of the largest score, a given share of each group."""
    score, keep = score_of(METHODS[method].by), {}
    apply = problem.trainer.net.model.apply
    found = score(apply, problem.params, problem.dense.groups, Probe(key=problem.gating_key))
    for name, share in shares.items():
        keep |= keep_top({name: found[name]}, problem.dense.groups, share, within_heads=True)
    params = mask(problem.params, problem.dense.groups, keep)
    return untrained(problem, params, jax.device_get(keep), seconds)


def halved(params: Any) -> Any:
    """Every kernel and embedding at half of its initial size; vectors, such as biases, stay."""
    return _with_kernels(params, 0.5)


def _with_kernels(params: Any, factor: float) -> Any:
    """Every kernel and embedding times `factor`."""
    return jax.tree.map(lambda leaf: factor * leaf if leaf.ndim > 1 else leaf, params)


def fresh(network: Network, keep: float, problem: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A narrow network with weights of its own, as the first nodes of the wide one."""
    sizes = dict(network.sizes)
    narrow = {"hidden": tuple(round(keep * width) for width in sizes["hidden"])}
    small = Network(network.kind, tuple((sizes | narrow).items()), network.exclude)
    params = functional(
        build(small, problem.shape, jax.random.fold_in(problem.gating_key, 1))
    ).params
    kept = {
        name: np.arange(size) < width
        for (name, size), width in zip(problem.dense.sizes.items(), narrow["hidden"], strict=True)
    }
    return expand(params, problem.dense.groups, kept), kept


def spread_shares(keep: float, problem: Problem, change: str) -> dict[str, float]:
    """Of each layer's nodes, from 3/2 of `keep` to 1/2 ("tapered") or the other way ("flared")."""
    factors = np.linspace(1.5, 0.5, len(problem.dense.sizes))
    factors = factors if change == "tapered" else factors[::-1]
    return {
        name: min(1.0, keep * float(factor))
        for name, factor in zip(problem.dense.sizes, factors, strict=True)
    }


def matched(network: Network, choice: Any, model: Any, problem: Any) -> Any:
    """The parameters of `choice` with every layer scaled to the activations of `model`'s.

    Kernels are scaled from the first layer to the last, so that the root mean square of what each
    layer adds up, over the open nodes and the probe, is that of `model`'s network.
    """
    inputs = problem.data.inputs.reshape(len(problem.data.inputs), -1)
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
