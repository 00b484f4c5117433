# SPDX-License-Identifier: Apache-2.0
"""Slices of parameters multiplied by one factor per node."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real

from plprune.graph.paths import leaf_is
from plprune.nodes.matching import edit_leaves
from plprune.types import Member, NodeGroups

Factor = tuple[Member, Real[Array, " _"]]
Factors = Mapping[str, Sequence[Factor]]  # By leaf path.


def scale_slices(params: PyTree, groups: NodeGroups, factors: Factors) -> PyTree:
    """Parameters with every listed slice multiplied by its node's factor.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them.
      groups: From `find_nodes`.
      factors: Leaf path -> the members to scale and the factors of their group.

    Raises:
      ValueError: as `edit_leaves`.
    """
    full = dict(zip(groups.paths, groups.shapes, strict=True))
    touched = {path: {member.axis for member, _ in each} for path, each in factors.items()}
    return edit_leaves(
        params, groups, lambda path, leaf: scaled_leaf(leaf, factors.get(path, ())), full, touched
    )


def scaled_leaf(leaf: Any, factors: Iterable[Factor]) -> Any:
    """A leaf with its nodes' slices multiplied, in its own dtype; integers and keys stay.

    Half precision is multiplied in float32, so that a factor is not rounded before the product.
    """
    factors = list(factors)
    if not factors or not leaf_is(leaf, jnp.inexact):
        return leaf
    leaf = jnp.asarray(leaf)
    wide = jnp.promote_types(leaf.dtype, jnp.float32)
    for member, values in factors:
        positions = along(per_position(values, member).astype(wide), member.axis, leaf.ndim)
        leaf = (leaf.astype(wide) * positions).astype(leaf.dtype)
    return leaf


def per_position(values: Real[Array, " g"], member: Member) -> Real[Array, " n"]:
    """The factor at each position of a member's axis; 1 where no node lies."""
    return jnp.where(member.index < 0, 1, values[member.index])


def along(vector: Array, axis: int, rank: int) -> Array:
    """A vector as an array of a given rank that varies along one axis."""
    return jnp.reshape(vector, [-1 if d == axis else 1 for d in range(rank)])
