# SPDX-License-Identifier: Apache-2.0
"""Checks of the trees that gating trains, and of the leaves that no optimiser moves."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from plprune.graph.paths import leaf_is, printed
from plprune.nodes.matching import match_leaves
from plprune.types import NodeGroups


def check_trained(params: PyTree, groups: NodeGroups, names: Iterable[str]) -> None:
    """ValueError unless these parameters can be gated in these groups.

    Raises:
      ValueError: `params` is not the tree that the groups were found on, in containers of any
        class, or a collection of it; it lacks a weight of a gated node, or holds a random key. Each
        is named by its path.
    """
    match = match_leaves(params, groups)
    for leaf in match.leaves:
        if leaf_is(leaf.value, jax.dtypes.prng_key):
            raise ValueError(
                f"params: leaf {printed([leaf.keys])[0]} is a random key, which optax cannot move; "
                "keep it out of the parameters."
            )
    known = set(match.places.values())
    for name in names:
        for member in groups[name].members:
            if member.path not in known and not groups.is_statistic(member.path):
                raise ValueError(
                    f"params must hold every weight of the nodes {name}: leaf {member.path} is "
                    "missing."
                )


def open_gradient(is_open: Array, gradient: Any, param: Any) -> Array:
    """The gradient at open nodes, zero elsewhere and of leaves that are not floating."""
    zero = jnp.zeros_like(param)
    return jnp.where(is_open, gradient, zero) if leaf_is(param, jnp.inexact) else zero


def shifted(update: Any, value: Any, param: Any) -> Array:
    """The update from where the parameter is, though it was computed at `value`.

    Integers and booleans are held fixed, whatever the inner optimiser makes of them.
    """
    if not leaf_is(param, jnp.inexact):
        return jnp.zeros_like(param)
    update = jnp.asarray(update)
    return update + jnp.asarray(value - param).astype(update.dtype)


def towards(value: Any, target: Any) -> Array:
    """The update that lands on `target` exactly; none where it is there, which may be infinity."""
    if not leaf_is(value, jnp.inexact):
        return jnp.zeros_like(value)
    return jnp.where(value == target, 0, target - value).astype(jnp.result_type(value))
