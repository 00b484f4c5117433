# SPDX-License-Identifier: Apache-2.0
"""Finding the parameters of node groups inside other trees: gradients, optimiser states, pairs.

Trees are compared by the keys that lead to their leaves, not by the classes of their containers.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache, partial
from math import prod
from typing import Any, NamedTuple

import jax
import optax

from plprune.graph.paths import Keys, Leaf, leaf_shape, leaves_with_keys, printed
from plprune.nodes.leftovers import AFRESH, Known, Touched, check_leftovers, is_small
from plprune.types import NodeGroups

LeafEdit = Callable[[str, Any], Any]  # (leaf path, leaf) -> leaf.


class _Pattern(NamedTuple):
    """Leaves that belong together: the parameters, or one collection of them."""

    paths: Mapping[Keys, str]
    shapes: Mapping[Keys, tuple[int, ...]]
    kinds: Mapping[Keys, Any]  # Class of variable, statistic or not.


class Match(NamedTuple):
    """A tree with the leaves that the groups know."""

    leaves: list[Leaf]
    places: dict[int, str]  # Position among `leaves` -> the path that the groups know it by.

    def positions(self) -> dict[int, str]:
        """Position among the leaves that jax counts, which holes are not, and the path."""
        counted = (k for k, leaf in enumerate(self.leaves) if not is_hole(leaf.value))
        return {n: self.places[k] for n, k in enumerate(counted) if k in self.places}


def edit_leaves(
    tree: Any,
    groups: NodeGroups,
    edit: LeafEdit,
    shapes: Mapping[str, tuple] | None = None,
    touched: Touched | None = None,
    *,
    argument: str = "params",
) -> Any:
    """Apply `edit` to the leaves of every sub-tree that has the leaves of the parameters.

    A sub-tree has them where the keys below it are theirs, in containers of any class. Where groups
    were found on (params, state) or on a mapping with a "params" entry, the parts are recognised
    alone too, and so are all variables of one kind (`nnx.Param`, running statistics). Entries that
    `optax.masked` left out, or None, stay out; leaves of one entry (counts, placeholders) stay as
    they are.

    Args:
      tree: Any pytree.
      groups: From `find_nodes`.
      edit: ``edit(path, leaf)`` for the leaf that `groups` knows by that path.
      shapes: The shape that each leaf must have, by path; None: its full one.
      touched: Leaf path -> the axes that the edit is about; None: those of all prunable nodes.
      argument: What the caller calls the tree.

    Raises:
      ValueError: a leaf of a matching sub-tree has another shape, no sub-tree matches, or a leaf
        outside all of them has a shape that the axes `touched` gave it.
    """
    match = match_leaves(tree, groups, shapes, touched, argument=argument)
    values = [leaf.value for leaf in match.leaves]
    for position, path in match.places.items():
        values[position] = edit(path, values[position])
    return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=is_hole), values)


def match_leaves(
    tree: Any,
    groups: NodeGroups,
    shapes: Mapping[str, tuple] | None = None,
    touched: Touched | None = None,
    *,
    argument: str = "params",
) -> Match:
    """Which leaves of a tree are which parameters; arguments and errors as of `edit_leaves`."""
    leaves = leaves_with_keys(tree, is_hole)
    shapes = groups.full_shapes if shapes is None else shapes
    patterns = _patterns(groups, shapes)
    places, covered = {}, set()
    for pattern, below in _roots(leaves, patterns, partial(_cuts, groups), argument):
        covered.update(below.values())
        for keys, path in pattern.paths.items():
            if keys in below and _fits_exactly(leaves[below[keys]].value, pattern.shapes[keys]):
                places[below[keys]] = path
    left = [leaf for k, leaf in enumerate(leaves) if k not in covered and not is_hole(leaf.value)]
    if left:
        if touched is None:
            touched = axes_of(groups, groups.prunable)
        known = Known(groups, patterns[0].paths, shapes, touched, argument)
        check_leftovers(tree, left, known, bool(covered))
    return Match(leaves, places)


def axes_of(groups: NodeGroups, names: Collection[str]) -> Touched:
    """Leaf path -> the axes along which nodes of some groups lie."""
    axes = defaultdict(set)
    for name in names:
        for member in groups[name].members:
            axes[member.path].add(member.axis)
    return axes


def is_hole(node: Any) -> bool:
    """Whether a node stands for leaves that are somewhere else."""
    return node is None or isinstance(node, optax.MaskedNode)


@lru_cache(maxsize=16)
def parameter_leaves(groups: NodeGroups) -> list[Leaf]:
    """Leaves of the parameters that groups were found on; their values are positions."""
    return leaves_with_keys(jax.tree.unflatten(groups.structure, range(len(groups.paths))))


def _patterns(groups, shapes) -> list[_Pattern]:
    """The parameters, then their collections alone."""
    known = parameter_leaves(groups)
    paths = {leaf.keys: groups.paths[leaf.value] for leaf in known}
    kinds = {leaf.keys: (leaf.box, groups.is_statistic(paths[leaf.keys])) for leaf in known}
    patterns = [_Pattern(paths, {keys: tuple(shapes[p]) for keys, p in paths.items()}, kinds)]
    whole = jax.tree.unflatten(groups.structure, range(len(groups.paths)))
    if type(whole) is tuple or (isinstance(whole, Mapping) and "params" in whole):
        for first in dict.fromkeys(keys[0] for keys in paths):
            part = _Pattern(*({k[1:]: v for k, v in table.items() if k[0] == first}
                              for table in patterns[0]))  # fmt: skip
            if () not in part.paths:
                patterns.append(part)
    return patterns


def _cuts(groups, path):
    """Which nodes of which groups lie along which axes of a leaf."""
    members = ((name, m) for name in groups.prunable for m in groups[name].members)
    return {(name, m.axis, m.index.tobytes()) for name, m in members if m.path == path}


def _roots(leaves, patterns, cuts, argument) -> Iterator[tuple[_Pattern, dict[Keys, int]]]:
    """Patterns of the outermost sub-trees that match, and (keys below the root -> position)."""
    holes = {leaf.keys for leaf in leaves if is_hole(leaf.value)}
    present = _present(leaves, patterns, holes)
    taken: set[Keys] = set()
    for root in sorted(present, key=len):
        if any(root[:depth] in taken for depth in range(len(root))):
            continue
        same = [p for p in patterns if _is_whole(p, root, present[root], holes)]
        below = _below(leaves, root) if same else {}
        same = [p for p in same if _all_known(leaves, below, p)]
        fitting = [p for p in same if _fit(leaves, below, p)]
        if fitting:
            _check_one(f"{argument}{_at(root)}", fitting, below, cuts)
            taken.add(root)
            yield fitting[0], below
        elif same and (() not in same[0].paths or not root):
            raise ValueError(_mismatch(argument, root, leaves, below, same[0]))


def _present(leaves, patterns, holes) -> dict[Keys, set[Keys]]:
    """Keys of every node -> the known keys below it that lead to a leaf."""
    known = {keys for pattern in patterns for keys in pattern.paths}
    present = defaultdict(set)
    for keys in (leaf.keys for leaf in leaves if leaf.keys not in holes):
        for depth in range(len(keys) + 1):
            if keys[depth:] in known:
                present[keys[:depth]].add(keys[depth:])
    return present


def _is_whole(pattern, root, present, holes):
    """Whether all leaves are there, but for holes and for all variables of a kind."""
    here = present & pattern.paths.keys()
    missing = [
        keys
        for keys in pattern.paths.keys() - here
        if not any(root + keys[:depth] in holes for depth in range(len(keys) + 1))
    ]
    return bool(here) and {pattern.kinds[k] for k in here}.isdisjoint(
        pattern.kinds[k] for k in missing
    )


def _below(leaves, root):
    return {
        leaf.keys[len(root) :]: k
        for k, leaf in enumerate(leaves)
        if leaf.keys[: len(root)] == root and not is_hole(leaf.value)
    }


def _all_known(leaves, below, pattern):
    """Counters and random keys may lie beside parameters."""
    others = below.keys() - pattern.paths.keys()
    return all(is_small(leaves[below[keys]].value) for keys in others)


def _fit(leaves, below, pattern):
    found = ((leaves[k].value, pattern.shapes[x]) for x, k in below.items() if x in pattern.paths)
    return all(_fits_exactly(value, shape) or _is_placeholder(value) for value, shape in found)


def _fits_exactly(value, shape):
    return leaf_shape(value) == shape


def _is_placeholder(value):
    return prod(leaf_shape(value)) <= 1


def _check_one(where, fitting, below, cuts):
    """ValueError where a sub-tree may be two collections, whose nodes differ."""
    first, *others = fitting
    for other in others:
        shared = below.keys() & first.paths.keys() & other.paths.keys()
        if any(cuts(first.paths[keys]) != cuts(other.paths[keys]) for keys in shared):
            names = (next(iter(pattern.paths.values())) for pattern in (first, other))
            raise ValueError(
                f"{where} fits several parts of the parameters, those with {' and '.join(names)}: "
                "pass the parameters whole."
            )


def _mismatch(argument, root, leaves, below, pattern):
    found = ((keys, leaves[below[keys]].value) for keys in pattern.paths if keys in below)
    keys, value = next(
        (keys, value)
        for keys, value in found
        if not (_fits_exactly(value, pattern.shapes[keys]) or _is_placeholder(value))
    )
    advice = f"; {AFRESH}" if root else ""
    return (
        f"{argument}{_at(root)}: leaf {pattern.paths[keys]} must have shape "
        f"{pattern.shapes[keys]}, got {leaf_shape(value)}{advice}."
    )


def _at(root):
    return f" at {printed([root])[0]}" if root else ""
