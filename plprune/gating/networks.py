# SPDX-License-Identifier: Apache-2.0
"""The gating network: node statistics to logits, and its alternative without a network."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.gating.objectives import Setting
from plprune.gating.statistics import NUM_STATISTICS, node_statistics
from plprune.types import Gates, NodeGroups

NETWORKS = ("logits", "mlp")


class GatingNetwork(NamedTuple):
    """Weights that are trained, and the logits that they stand for."""

    init: Callable[[PRNGKeyArray], Any]
    statistics: Callable[[Setting], Any]  # Detached; read once per call of the transformation.
    logits: Callable[[Any, Any], Gates]  # (weights, statistics) -> logits.


def gating_network(
    name: str, groups: NodeGroups, sizes: Mapping[str, int], *, width: int = 16
) -> GatingNetwork:
    """The network called `name`.

    Args:
      name: "logits": one free logit per node. "mlp": a perceptron with one hidden layer for all
        nodes of a kind, whatever their group, from `node_statistics` to a logit; its last layer
        starts at zero, so all gates start equal.
      groups: From `find_nodes`.
      sizes: Group name -> number of nodes, for the groups to gate.
      width: Hidden neurons of "mlp".

    Raises:
      ValueError: an unknown name, or a width below 1.
    """
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {NETWORKS}, got {name!r}.")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}.")
    return _free_logits(sizes) if name == "logits" else _shared_mlp(groups, sizes, width)


def _free_logits(sizes):
    def init(key):
        del key
        return {name: jnp.zeros(size, jnp.float32) for name, size in sizes.items()}

    return GatingNetwork(init, lambda _: (), lambda weights, _: weights)


def _shared_mlp(groups, sizes, width):
    kinds = sorted({groups[name].kind for name in sizes})

    def init(key):
        keys = jax.random.split(key, len(kinds))
        return {kind: _mlp_weights(k, width) for kind, k in zip(kinds, keys, strict=True)}

    def logits(weights, statistics):
        return {name: _mlp(weights[groups[name].kind], statistics[name]) for name in sizes}

    return GatingNetwork(init, lambda setting: node_statistics(setting, groups, sizes), logits)


def _mlp_weights(key, width):
    shape = (NUM_STATISTICS, width)
    return {
        "hidden": jax.random.normal(key, shape, jnp.float32) / NUM_STATISTICS**0.5,
        "bias": jnp.zeros(width, jnp.float32),
        "output": jnp.zeros(width, jnp.float32),
    }


def _mlp(weights, statistics: Float[Array, "g s"]) -> Float[Array, " g"]:
    hidden = jnp.tanh(statistics @ weights["hidden"] + weights["bias"][None])
    return hidden @ weights["output"]
