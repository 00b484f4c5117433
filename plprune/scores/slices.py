# SPDX-License-Identifier: Apache-2.0
"""Norms and sums over the slices that nodes own."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from plprune.graph.paths import leaf_is
from plprune.nodes.matching import edit_leaves, match_leaves
from plprune.nodes.scaling import Slices, factors_by_leaf, over_leaf, scale_slices
from plprune.norms import at_least_float32, raised, root, scale_of
from plprune.types import Gates, Member, NodeGroup, NodeGroups

NodeScores = dict[str, Float[Array, " g"]]


def producing(group: NodeGroup) -> tuple[Member, ...]:
    """Slices that compute the node; all its slices where it is only read."""
    return group.producers or group.members


def owned(group: NodeGroup) -> tuple[Member, ...]:
    """Every slice that shrinking removes with the node."""
    return group.members


def gating(group: NodeGroup) -> tuple[Member, ...]:
    """Slices whose scaling gates the node; of a group without a gate, those that compute it."""
    return group.consumers if group.gateable else producing(group)


def node_norms(tree: PyTree, groups: NodeGroups, slices: Slices) -> NodeScores:
    """l2 norm of each node's slices, for every prunable group, in float32 or wider.

    Right at any scale whose norm is a number of that dtype, with derivative zero at a zero node.
    Running statistics count for nothing: they are not trained.

    Args:
      tree: The parameters that the groups were found on, a gradient, or the params of the pair
        (params, state) that they were found on.
      groups: From `find_nodes`.
      slices: Which members of a group to take the norm over.

    Raises:
      ValueError: `tree` lacks a leaf that a group needs.
    """
    leaves = leaves_by_path(tree, groups)

    def norms(group):
        members = [m for m in slices(group) if not groups.is_statistic(m.path)]
        for member in members:
            if member.path not in leaves:
                raise ValueError(f"params must hold the leaf {member.path}, got {list(leaves)}.")
        return member_norms([(leaves[m.path], m) for m in members], group.size)

    return {name: norms(groups[name]) for name in groups.prunable}


def member_norms(pairs: Sequence[tuple[Any, Member]], size: int) -> Float[Array, " g"]:
    """l2 norms of g nodes over pairs of a leaf and the member of a group that lies in it.

    Integers and keys count for nothing. Each node is scaled by its own largest entry
    first. Two passes over the leaves.
    """
    real = [(jnp.abs(raised(leaf)), m) for leaf, m in pairs if leaf_is(leaf, jnp.inexact)]
    dtype = at_least_float32(*(leaf.dtype for leaf, _ in real))
    peaks = jnp.zeros(size, dtype)
    for leaf, member in real:
        largest = jnp.max(leaf, axis=_others(leaf, member), initial=0)
        positions = np.flatnonzero(member.index >= 0)
        peaks = peaks.at[member.index[positions]].max(largest[positions].astype(dtype))
    scales, total = scale_of(jax.lax.stop_gradient(peaks)), jnp.zeros(size, dtype)
    for leaf, member in real:
        squares = jnp.square(leaf / over_leaf(scales.astype(leaf.dtype), member, leaf))
        sums = jnp.sum(squares, axis=_others(leaf, member)).astype(dtype)
        total = total + per_node(sums, member, size)
    return scales * root(total)


def _others(leaf, member):
    return tuple(d for d in range(leaf.ndim) if d != member.axis)


def scaled(params: PyTree, groups: NodeGroups, factors: Gates) -> PyTree:
    """`gate`, extended to groups without a gate: there it scales what computes the node.

    The derivative in a factor at 1 is the sum of p * dL/dp over the node's `gating` slices.
    """

    def trained(group):
        return [m for m in gating(group) if not groups.is_statistic(m.path)]

    return scale_slices(params, groups, factors_by_leaf(groups, factors, trained))


def unit_factors(groups: NodeGroups) -> dict[str, Array]:
    """A factor of 1 for each node of the prunable groups."""
    return {name: jnp.ones(size) for name, size in groups.prunable.items()}


def edit_trained(params: PyTree, groups: NodeGroups, edit: Callable) -> PyTree:
    """``edit(path, leaf)`` of the leaves that training moves: no statistics, integers or keys."""

    def where_trained(path, leaf):
        trained = leaf_is(leaf, jnp.inexact) and not groups.is_statistic(path)
        return edit(path, jnp.asarray(leaf)) if trained else leaf

    return edit_leaves(params, groups, where_trained)


def leaves_by_path(
    tree: PyTree, groups: NodeGroups, values: PyTree | None = None
) -> dict[str, Any]:
    """The leaves of a params-like tree, or of `values` like it, by the paths the groups know."""
    leaves = jax.tree.leaves(tree if values is None else values)
    places = match_leaves(tree, groups).positions()
    return {path: leaves[k] for k, path in places.items()}


def per_node(values: Float[Array, "n ..."], member: Member, size: int) -> Float[Array, "g ..."]:
    """Values per position of a member's axis, summed over the positions of each node."""
    positions = np.flatnonzero(member.index >= 0)
    total = jnp.zeros((size, *values.shape[1:]), values.dtype)
    return total.at[member.index[positions]].add(values[positions])
