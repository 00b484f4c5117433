# SPDX-License-Identifier: Apache-2.0
"""Slices of parameters multiplied by one factor per node."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from plprune.nodes.closing import along
from plprune.nodes.matching import edit_leaves
from plprune.types import Member, NodeGroups

Factors = Mapping[str, Sequence[tuple[Member, Float[Array, " g"]]]]  # By leaf path.


def scale_slices(params: PyTree, groups: NodeGroups, factors: Factors) -> PyTree:
    """Parameters with every listed slice multiplied by its node's factor.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them.
      groups: From `find_nodes`.
      factors: Leaf path -> the members to scale and the factors of their group.
    """

    def scaled(path, leaf):
        for member, values in factors.get(path, ()):
            positions = per_position(values, member).astype(leaf.dtype)
            leaf = leaf * along(positions, member.axis, leaf.ndim)
        return leaf

    full = dict(zip(groups.paths, groups.shapes, strict=True))
    return edit_leaves(params, groups, scaled, full)


def per_position(values: Float[Array, " g"], member: Member) -> Float[Array, " n"]:
    """The factor at each position of a member's axis; 1 where no node lies."""
    return jnp.where(member.index < 0, 1, values[member.index])
