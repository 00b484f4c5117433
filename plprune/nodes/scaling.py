# SPDX-License-Identifier: Apache-2.0
"""Slices of parameters multiplied by one factor per node."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real, Shaped

from plprune.graph.paths import leaf_is
from plprune.nodes.matching import edit_leaves
from plprune.types import Member, NodeGroup, NodeGroups

Factor = tuple[Member, Real[Array, " _"]]
Factors = Mapping[str, Sequence[Factor]]  # By leaf path.
Slices = Callable[[NodeGroup], Sequence[Member]]


def consuming(group: NodeGroup) -> tuple[Member, ...]:
    """Slices that are contracted against the node's output."""
    return group.consumers


def factors_by_leaf(groups: NodeGroups, values: Mapping[str, Array], slices: Slices) -> Factors:
    """The slices of some groups and their nodes' values, sorted by the leaves they lie in."""
    found = defaultdict(list)
    for name, own in values.items():
        for member in slices(groups[name]):
            found[member.path].append((member, own))
    return found


def scale_slices(params: PyTree, groups: NodeGroups, factors: Factors) -> PyTree:
    """Parameters with every listed slice multiplied by its node's factor.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them.
      groups: From `find_nodes`.
      factors: Leaf path -> the members to scale and the factors of their group.

    Raises:
      ValueError: as `edit_leaves`.
    """
    touched = {path: {member.axis for member, _ in each} for path, each in factors.items()}
    return edit_leaves(
        params,
        groups,
        lambda path, leaf: scaled_leaf(leaf, factors.get(path, ())),
        touched=touched,
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
        leaf = (leaf.astype(wide) * over_leaf(values, member, leaf).astype(wide)).astype(leaf.dtype)
    return leaf


def per_position(
    values: Shaped[Array, " g"], member: Member, *, elsewhere: Any = 1
) -> Shaped[Array, " n"]:
    """The value of the node at each position of a member's axis, `elsewhere` where none lies."""
    return jnp.where(member.index < 0, elsewhere, jnp.asarray(values)[member.index])


def over_leaf(
    values: Shaped[Array, " g"], member: Member, leaf: Any, *, elsewhere: Any = 1
) -> Array:
    """`per_position` as an array that broadcasts to the leaf in which the member lies."""
    return along(per_position(values, member, elsewhere=elsewhere), member.axis, jnp.ndim(leaf))


def along(vector: Array, axis: int, rank: int) -> Array:
    """A vector as an array of a given rank that varies along one axis."""
    return jnp.reshape(vector, [-1 if d == axis else 1 for d in range(rank)])
