# SPDX-License-Identifier: Apache-2.0
"""Gates and masks: nodes scaled or closed without changing any shape."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from plprune.nodes.checks import check_names
from plprune.nodes.matching import edit_leaves
from plprune.types import Gates, Keep, NodeGroups


def gate(params: PyTree, groups: NodeGroups, gates: Gates) -> PyTree:
    """Parameters with which every node's output counts gate times.

    Scales the slices that are contracted against the node's output, so the function is the one
    that multiplies the node wherever it is read, whatever the activation. At gates 0 it equals the
    masked function; dL/dgate is the sum of p * dL/dp over these slices.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them.
      groups: From `find_nodes`.
      gates: Group name -> [g] multipliers, possibly traced. Groups left out stay as they are.

    Raises:
      ValueError: an unknown name, a wrong length, or a group that no gate on parameters can
        scale, with the reason.
    """
    check_names(gates, groups, "gates")
    for name in gates:
        if not groups[name].gateable:
            raise ValueError(f"gates[{name!r}]: {groups[name].reason}.")
    factors = defaultdict(list)
    for name, values in gates.items():
        for member in groups[name].consumers:
            factors[member.path].append((member, jnp.asarray(values)))
    return edit_leaves(
        params, groups, lambda path, leaf: _scaled(leaf, factors[path]), _full(groups)
    )


def _scaled(leaf, factors):
    for member, gates in factors:
        per_position = jnp.where(member.index < 0, 1, gates[member.index]).astype(leaf.dtype)
        leaf = leaf * along(per_position, member.axis, leaf.ndim)
    return leaf


def along(vector: Array, axis: int, rank: int) -> Array:
    """A vector as an array of a given rank that varies along one axis."""
    return jnp.reshape(vector, [-1 if d == axis else 1 for d in range(rank)])


def mask(params: PyTree, groups: NodeGroups, keep: Keep) -> PyTree:
    """Parameters whose closed nodes are exactly zero; `shrink` with `resize` is the same function.

    All slices of closed nodes become zero, running statistics excepted: those of a router's bias,
    where one closes an expert, become minus infinity.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans, possibly traced; False closes. Groups left out stay open.

    Raises:
      ValueError: an unknown name, a wrong length, or a group that cannot be pruned.
    """
    check_names(keep, groups, "keep")
    for name, kept in keep.items():
        if not groups[name].prunable and not _all_open(kept):
            raise ValueError(f"keep[{name!r}] cannot close nodes: {groups[name].reason}.")
    closings = defaultdict(list)
    for name, kept in keep.items():
        for member in groups[name].members:
            if member.path.rpartition(".")[2] not in groups.statistics:
                value = groups.closed_values.get((name, member.path), 0)
                closings[member.path].append((member, jnp.asarray(kept), value))
    return edit_leaves(
        params, groups, lambda path, leaf: _closed(leaf, closings[path]), _full(groups)
    )


def _all_open(kept):
    """Whether all nodes stay open; a traced array might close some."""
    try:
        return bool(np.all(np.asarray(kept)))
    except jax.errors.TracerArrayConversionError:
        return False


def _closed(leaf, closings):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return leaf
    for member, kept, value in closings:
        stays = jnp.where(member.index < 0, True, kept[member.index])
        leaf = jnp.where(along(stays, member.axis, leaf.ndim), leaf, jnp.asarray(value, leaf.dtype))
    return leaf


def _full(groups):
    return dict(zip(groups.paths, groups.shapes, strict=True))
