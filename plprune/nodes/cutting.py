# SPDX-License-Identifier: Apache-2.0
"""Shrinking trees to the kept nodes, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from plprune.compilation import is_concrete
from plprune.graph.paths import leaf_is
from plprune.graph.rules.placing import fitting
from plprune.graph.shrinking.resizing import take
from plprune.nodes.checks import concrete_keep
from plprune.nodes.matching import edit_leaves
from plprune.types import Keep, NodeGroups

Axes = list[np.ndarray]  # Per axis of a leaf: the positions that stay.


def shrink(tree: PyTree, groups: NodeGroups, keep: Keep) -> PyTree:
    """The tree without the closed nodes' slices.

    Every sub-tree that has the keys and shapes of the parameters is cut, in containers of any
    class: params, (params, state), gradients, the moments in an optax state. Scalars, counts and
    random keys stay. A leaf that a `NamedSharding` spreads over devices stays spread as it was, but
    for axes whose new size the devices do not divide: `keep_top(..., round_to=...)` avoids these.

    Args:
      tree: Any pytree.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans, or exact 0 and 1, concrete. Groups left out keep all nodes.

    Raises:
      ValueError: as `mask`; a traced `keep`, a group that loses all its nodes, or an array outside
        the parameters with a size that depends on the nodes, such as the accumulators of
        ``optax.sm3`` or the vectors of ``optax.flatten``: make the state of such an optimiser
        afresh.
    """
    axes = kept_axes(groups, keep)
    return edit_leaves(
        tree,
        groups,
        lambda path, leaf: cut_leaf(leaf, axes[path]),
        touched=lost_axes(axes, groups),
        argument="tree",
    )


def expand(tree: PyTree, groups: NodeGroups, keep: Keep) -> PyTree:
    """A shrunk tree at full size again, with zeros where nodes were closed.

    `shrink(expand(tree, ...), ...)` is the tree itself, and `expand(shrink(tree, ...), ...)` has
    zeros in every slice of a closed node, running statistics included.

    Args:
      tree: From `shrink` with the same groups and keep, or trained on from there.
      groups: From `find_nodes`.
      keep: As given to `shrink`.

    Raises:
      ValueError: as `shrink`; the leaves must have the shrunk shapes.
    """
    axes = kept_axes(groups, keep)
    full = groups.full_shapes

    def spread(path, leaf):
        if jnp.shape(leaf) == full[path]:
            return leaf
        return _where_it_is(leaf, full[path], lambda own: _spread(own, axes[path], full[path]))

    small, cut = small_shapes(axes), lost_axes(axes, groups)
    return edit_leaves(tree, groups, spread, small, cut, argument="tree")


def lost_axes(axes: Mapping[str, Axes], groups: NodeGroups) -> dict[str, set[int]]:
    """Leaf path -> the axes that lose positions, of leaves that have such."""
    lost = {path: {d for d, n in enumerate(shape) if len(axes[path][d]) < n}
            for path, shape in groups.full_shapes.items()}  # fmt: skip
    return {path: along for path, along in lost.items() if along}


def kept_axes(groups: NodeGroups, keep: Keep) -> dict[str, Axes]:
    """Leaf path -> per axis, the sorted positions of which no closed node owns a part."""
    concrete = concrete_keep(keep, groups)
    shapes = groups.full_shapes.items()
    stays = {path: [np.ones(n, bool) for n in shape] for path, shape in shapes}
    for name, kept in concrete.items():
        for member in groups[name].members:
            stays[member.path][member.axis] &= (member.index < 0) | kept[member.index]
    return {path: [np.flatnonzero(s) for s in axes] for path, axes in stays.items()}


def small_shapes(axes: Mapping[str, Axes]) -> dict[str, tuple[int, ...]]:
    """Leaf path -> shape after the cut."""
    return {path: tuple(map(len, positions)) for path, positions in axes.items()}


def cut_leaf(leaf: Any, axes: Axes) -> jax.Array:
    """The positions `axes` of a leaf, spread over devices as it is."""
    return _where_it_is(leaf, tuple(map(len, axes)), lambda whole: _cut_leaf(whole, axes))


def _where_it_is(leaf, shape, edit):
    """``edit(leaf)`` of another shape, on the devices that the leaf lies on.

    Axes that change are gathered first, for a device would have to ask others for its new part;
    those whose new size the devices do not divide evenly stay so.
    """
    place = leaf.sharding if is_concrete(leaf) else None
    if not isinstance(place, NamedSharding) or place.num_devices == 1:
        return edit(leaf)
    spec = [own if old == new else None
            for own, old, new in zip(place.spec, leaf.shape, shape, strict=False)]  # fmt: skip
    gathered = NamedSharding(place.mesh, PartitionSpec(*spec), memory_kind=place.memory_kind)
    return jax.device_put(edit(jax.device_put(leaf, gathered)), fitting(place, shape))


def _cut_leaf(leaf, axes):
    if leaf_is(leaf, jax.dtypes.prng_key):
        left = leaf
    elif _on_host(leaf):
        return jnp.asarray(np.asarray(leaf)[np.ix_(*axes)])
    else:
        left = jnp.asarray(leaf)
    for axis, positions in enumerate(axes):
        left = take(left, positions, axis)
    return left


def _spread(leaf, axes, shape):
    if _on_host(leaf):
        whole = np.zeros(shape, leaf.dtype)
        whole[np.ix_(*axes)] = leaf
        return jnp.asarray(whole)
    leaf = jnp.asarray(leaf)
    for axis, positions in enumerate(axes):
        if len(positions) < shape[axis]:
            source = np.full(shape[axis], len(positions))  # Beyond the end: filled with zeros.
            source[positions] = np.arange(len(positions))
            leaf = jnp.take(leaf, source, axis=axis, mode="fill", fill_value=0)
    return leaf


def _on_host(leaf):
    """Whether NumPy can index it without a copy; XLA would compile a program for every shape."""
    if isinstance(leaf, np.ndarray):
        return True
    try:
        return [device.platform for device in leaf.devices()] == ["cpu"]
    except (AttributeError, jax.errors.ConcretizationTypeError):  # A number, a traced array.
        return False
