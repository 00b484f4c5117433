# SPDX-License-Identifier: Apache-2.0
"""Sums over the slices that nodes own."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from plprune.graph.paths import leaf_is
from plprune.nodes.matching import edit_leaves, match_leaves
from plprune.nodes.scaling import scale_slices
from plprune.types import Gates, Member, NodeGroup, NodeGroups

NodeScores = dict[str, Float[Array, " g"]]
Slices = Callable[[NodeGroup], tuple[Member, ...]]


def producing(group: NodeGroup) -> tuple[Member, ...]:
    """Slices that compute the node; all its slices where it is only read."""
    return group.producers or group.members


def owned(group: NodeGroup) -> tuple[Member, ...]:
    """Every slice that shrinking removes with the node."""
    return group.members


def gating(group: NodeGroup) -> tuple[Member, ...]:
    """Slices whose scaling gates the node; of a group without a gate, those that compute it."""
    return group.consumers if group.gateable else producing(group)


def node_sums(tree: PyTree, groups: NodeGroups, slices: Slices) -> NodeScores:
    """Sum of the entries of each node's slices, for every prunable group.

    Running statistics count for nothing: they are not trained.

    Args:
      tree: The parameters that the groups were found on, a gradient, or the params of the pair
        (params, state) that they were found on.
      groups: From `find_nodes`.
      slices: Which members of a group to sum over.

    Raises:
      ValueError: `tree` lacks a leaf that a group needs.
    """
    leaves = leaves_by_path(tree, groups)
    return {
        name: sum(
            (_member_sums(leaves, m, groups[name].size) for m in slices(groups[name])
             if not is_statistic(groups, m.path)),
            start=jnp.zeros(groups[name].size),
        )
        for name in groups.prunable
    }  # fmt: skip


def is_statistic(groups: NodeGroups, path: str) -> bool:
    """Whether a leaf is a running statistic, such as the mean of BatchNorm."""
    return groups.is_statistic(path)


def scaled(params: PyTree, groups: NodeGroups, factors: Gates) -> PyTree:
    """`gate`, extended to groups without a gate: there it scales what computes the node.

    The derivative in a factor at 1 is the sum of p * dL/dp over the node's `gating` slices.
    """
    per_leaf = defaultdict(list)
    for name, values in factors.items():
        for member in gating(groups[name]):
            if not is_statistic(groups, member.path):
                per_leaf[member.path].append((member, values))

    return scale_slices(params, groups, per_leaf)


def unit_factors(groups: NodeGroups) -> dict[str, Array]:
    """A factor of 1 for each node of the prunable groups."""
    return {name: jnp.ones(size) for name, size in groups.prunable.items()}


def edit_trained(params: PyTree, groups: NodeGroups, edit: Callable) -> PyTree:
    """``edit(path, leaf)`` of the leaves that training moves: no statistics, integers or keys."""

    def where_trained(path, leaf):
        trained = leaf_is(leaf, jnp.inexact) and not is_statistic(groups, path)
        return edit(path, jnp.asarray(leaf)) if trained else leaf

    return edit_leaves(params, groups, where_trained, _shapes(groups))


def leaves_by_path(
    tree: PyTree, groups: NodeGroups, values: PyTree | None = None
) -> dict[str, Any]:
    """The leaves of a params-like tree, or of `values` like it, by the paths the groups know."""
    leaves = jax.tree.leaves(tree if values is None else values)
    places = match_leaves(tree, groups, _shapes(groups)).positions()
    return {path: leaves[k] for k, path in places.items()}


def _shapes(groups):
    return dict(zip(groups.paths, groups.shapes, strict=True))


def _member_sums(leaves, member, size):
    if member.path not in leaves:
        raise ValueError(f"params must hold the leaf {member.path}, got {list(leaves)}.")
    leaf = jnp.asarray(leaves[member.path])
    others = tuple(d for d in range(leaf.ndim) if d != member.axis)
    # Bfloat16 parameters are summed in float32.
    sums = jnp.sum(leaf, axis=others, dtype=jnp.promote_types(leaf.dtype, jnp.float32))
    return per_node(sums, member, size)


def per_node(values: Float[Array, "n ..."], member: Member, size: int) -> Float[Array, "g ..."]:
    """Values per position of a member's axis, summed over the positions of each node."""
    positions = np.flatnonzero(member.index >= 0)
    total = jnp.zeros((size, *values.shape[1:]), values.dtype)
    return total.at[member.index[positions]].add(values[positions])


def squared(tree: PyTree) -> PyTree:
    """Squared magnitudes, at least in float32; integers and keys are not trained and count zero."""

    def square(leaf):
        if not leaf_is(leaf, jnp.inexact):
            return jnp.zeros(jnp.shape(leaf))
        wide = jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))
        return jnp.square(jnp.real(wide)) + jnp.square(jnp.imag(wide))

    return jax.tree.map(square, tree)
