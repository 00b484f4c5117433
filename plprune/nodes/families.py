# SPDX-License-Identifier: Apache-2.0
"""Nodes sorted into families with slices of one shape, no two of which share a position.

A flattened [m, m] axis gives each position to a row and to a column, whose slices have the same
shape: two families if they are different nodes, and none that could be pruned if every node is
row and column at once, as in the outer product of a layer with itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from plprune.graph.linear.roles import LeafAxis
from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Graph

Shape = tuple[tuple[LeafAxis, int], ...]  # Of a node's slices: how many positions of each axis.


class _Along(NamedTuple):
    """An axis by its atoms."""

    atoms: np.ndarray  # [a], sorted.
    starts: np.ndarray  # [a + 1] of each one's positions.
    positions: np.ndarray  # Sorted for each atom.


class Slices:
    """Which positions of which parameter axes each atom owns.

    All atoms are handled at once: there are as many as all layers have neurons.
    """

    def __init__(self, graph: Graph, labels: Labels):
        self.full: dict[LeafAxis, int] = {}
        self._along: dict[LeafAxis, _Along] = {}
        seen = []
        for leaf in range(len(graph.paths[0])):
            for axis, vector in enumerate(labels[graph.inputs[leaf]]):
                self.full[leaf, axis] = len(vector)
                atoms, positions = _owned(labels, vector)
                seen.append(atoms)
                self._along[leaf, axis] = _by_atom(atoms, positions)
        everything = np.concatenate([np.zeros(0, np.int64), *seen])
        self._atoms, first = np.unique(everything, return_index=True)
        self._order = np.argsort(first)  # Of first appearance.
        self._number = np.zeros(len(self._atoms), np.int64)
        self._shapes: list[Shape] = [()]
        self._number_shapes()

    def _number_shapes(self):
        """Atoms with slices of one shape get one number."""
        for key, (atoms, starts, _) in self._along.items():
            at = np.searchsorted(self._atoms, atoms)
            counts = np.diff(starts)
            base = int(counts.max(initial=0)) + 1
            codes, inverse = np.unique(self._number[at] * base + counts, return_inverse=True)
            self._number[at] = len(self._shapes) + inverse.reshape(-1)
            for code in codes.tolist():
                shape, count = divmod(code, base)
                self._shapes.append((*self._shapes[shape], (key, count)))

    def __contains__(self, atom: Any) -> bool:
        at = np.searchsorted(self._atoms, atom)
        return bool(at < len(self._atoms) and self._atoms[at] == atom)

    def shape(self, atom: Label) -> Shape:
        """Of an atom's slices."""
        return self._shapes[self._number[np.searchsorted(self._atoms, atom)]]

    def positions(self, key: LeafAxis, atoms: Sequence[Label]) -> np.ndarray:
        """Positions [atom, k] along an axis, of which atoms of one shape have as many."""
        along = self._along[key]
        at = np.searchsorted(along.atoms, atoms)
        count = int(along.starts[at[0] + 1] - along.starts[at[0]])
        return along.positions[along.starts[at][:, None] + np.arange(count)]

    def alike(self) -> Iterator[tuple[Shape, list[Label]]]:
        """Atoms by the shape of their slices, in order of appearance."""
        numbers = self._number[self._order]
        unique, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        members = np.argsort(inverse.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(inverse.reshape(-1), minlength=len(unique)))
        own = np.split(self._atoms[self._order][members], ends[:-1])
        for k in np.argsort(first).tolist():
            yield self._shapes[unique[k]], own[k].tolist()


def _owned(labels, vector) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of an atom and a position that it owns along an axis."""
    if len(vector) == 0:  # An axis of no size holds no node, and has no runs to split.
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    unique, inverse = np.unique(labels.atoms.roots(vector), return_inverse=True)
    inverse, (plain, products) = inverse.reshape(-1), labels.atoms.parted(unique)
    if not len(products):
        places = np.flatnonzero(np.isin(unique, plain)[inverse])
        order = np.argsort(inverse[places], kind="stable")
        return unique[inverse][places][order], places[order]
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse, minlength=len(unique))).tolist()
    atoms, positions = [], []
    for root, start, end in zip(unique.tolist(), [0, *ends], ends, strict=False):
        for atom in labels.atoms.of_root(root):
            atoms.append(np.full(end - start, atom))
            positions.append(order[start:end])
    return np.concatenate(atoms), np.concatenate(positions)


def _by_atom(atoms, positions) -> _Along:
    order = np.lexsort((positions, atoms))
    unique, counts = np.unique(atoms, return_counts=True)
    return _Along(unique, np.concatenate([[0], np.cumsum(counts)]), positions[order])


def families(
    graph: Graph, labels: Labels, slices: Slices, is_open: Callable[[Shape], bool]
) -> tuple[dict[Any, list[Label]], dict[Label, tuple[LeafAxis, int]]]:
    """Atoms by the shape of their slices, whether they are open and their place in products.

    Args:
      graph: From `trace`.
      labels: Of the graph.
      slices: Of all atoms.
      is_open: Whether nodes with slices of a shape can be removed, unless they are pinned.

    Returns:
      (families, shared): keys of the families begin with the shape, ((leaf, axis), count), ...;
      `shared` holds the atoms that cannot be told apart by place, each with a position that two
      nodes of its family own.
    """
    found, shared, pinned = {}, {}, labels.atoms.pinned
    for shape, atoms in slices.alike():
        free = is_open(shape)
        alike = defaultdict(list)
        for atom in atoms:
            alike[free and atom not in pinned].append(atom)
        for opened, own in alike.items():
            parts, overlap = [own], None
            if opened:
                parts, overlap = _apart(graph, labels, slices, own, [key for key, _ in shape])
            found.update({(shape, opened, place): part for place, part in enumerate(parts)})
            if overlap is not None:
                shared.update(dict.fromkeys(own, overlap))
    return found, shared


def _apart(graph, labels, slices, atoms, keys):
    """Parts without a common position, where there are any, and a position that is still shared."""
    overlap = _overlap(slices, atoms, keys)
    if overlap is None:
        return [atoms], None
    (leaf, axis), _ = overlap
    places = _places(labels, labels[graph.inputs[leaf]][axis], atoms)
    parts = [[a for a in atoms if places[a] == place] for place in sorted(set(places.values()))]
    left = (_overlap(slices, part, keys) for part in parts)
    return parts, next(filter(None, left), None)


def _overlap(slices, atoms: Sequence[Label], keys) -> tuple[LeafAxis, int] | None:
    """An axis and a position on it that two of the atoms own."""
    if len(atoms) < 2:
        return None
    for key in keys:
        positions = slices.positions(key, atoms).reshape(-1)
        unique, counts = np.unique(positions, return_counts=True)
        if len(unique) < len(positions):
            return key, int(unique[counts > 1][0])
    return None


def _places(labels, vector, atoms) -> dict[Label, int]:
    """Which factor of the products along an axis each atom is; 0 for all if one is several."""
    places = dict.fromkeys(atoms, -1)
    for root in np.unique(labels.atoms.roots(vector)).tolist():
        for place, atom in enumerate(a for a in labels.atoms.of_root(root) if a in places):
            if places[atom] not in (-1, place):
                return dict.fromkeys(atoms, 0)
            places[atom] = place
    return places
