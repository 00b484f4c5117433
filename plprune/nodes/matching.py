# SPDX-License-Identifier: Apache-2.0
"""Finding the parameters of node groups inside other trees: gradients, optimiser states, pairs."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plprune.types import NodeGroups

LeafEdit = Callable[[str, Any], Any]  # (leaf path, leaf) -> leaf.


class _Pattern(NamedTuple):
    structure: Any
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def edit_leaves(tree: Any, groups: NodeGroups, edit: LeafEdit, shapes: Mapping[str, tuple]) -> Any:
    """Apply `edit` to the leaves of every sub-tree that has the structure of the parameters.

    Where groups were found on (params, state) or on a mapping with a "params" entry, the parts are
    recognised alone too. Entries that `optax.masked` left out stay out, and leaves of one entry
    (counts, placeholders) stay as they are.

    Args:
      tree: Any pytree.
      groups: From `find_nodes`.
      edit: ``edit(path, leaf)`` for the leaf that `groups` knows by that path.
      shapes: The shape that each leaf must have, by path.

    Raises:
      ValueError: a leaf of a matching sub-tree has another shape.
    """
    return _edit(tree, _patterns(groups, shapes), edit, "tree")


def _is_masked(node):
    return isinstance(node, optax.MaskedNode)


def _patterns(groups, shapes) -> list[_Pattern]:
    """The parameters' structure, then the structures of its collections."""
    ordered = tuple(shapes[path] for path in groups.paths)
    patterns = [_Pattern(groups.structure, groups.paths, ordered)]
    whole = jax.tree.unflatten(groups.structure, range(len(groups.paths)))
    for part in _collections(whole):
        leaves, structure = jax.tree.flatten(part)
        if leaves and not jax.tree_util.treedef_is_leaf(structure):
            paths = tuple(groups.paths[k] for k in leaves)
            patterns.append(_Pattern(structure, paths, tuple(ordered[k] for k in leaves)))
    return patterns


def _collections(whole):
    if type(whole) is tuple:
        return whole
    return tuple(whole.values()) if isinstance(whole, Mapping) and "params" in whole else ()


def _edit(node, patterns, edit, where):
    structure = jax.tree.structure(node, is_leaf=_is_masked)
    same = [p for p in patterns if p.structure == structure]
    if same:
        leaves = jax.tree.leaves(node, is_leaf=_is_masked)
        fitting = [p for p in same if all(map(_fits, leaves, p.shapes))]
        if fitting:
            return _edited(structure, leaves, fitting[0], edit)
        if not jax.tree_util.treedef_is_leaf(structure):
            raise ValueError(_mismatch(leaves, same[0], where))
    children, around = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if len(children) == 1 and children[0][1] is node:
        return node
    edited = [
        _edit(child, patterns, edit, where + jax.tree_util.keystr(path)) for path, child in children
    ]
    return jax.tree.unflatten(around, edited)


def _fits(leaf, shape):
    return _is_masked(leaf) or jnp.shape(leaf) == shape or prod(jnp.shape(leaf)) == 1


def _edited(structure, leaves, pattern, edit):
    parts = zip(pattern.paths, pattern.shapes, leaves, strict=True)
    out = [edit(path, x) if not _is_masked(x) and jnp.shape(x) == s else x for path, s, x in parts]
    return jax.tree.unflatten(structure, out)


def _mismatch(leaves, pattern, where):
    path, shape, leaf = next(
        (path, shape, leaf)
        for path, shape, leaf in zip(pattern.paths, pattern.shapes, leaves, strict=True)
        if not _fits(leaf, shape)
    )
    return f"{where}: leaf {path} must have shape {shape}, got {jnp.shape(leaf)}."
