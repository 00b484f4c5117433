# SPDX-License-Identifier: Apache-2.0
"""Nodes sorted into families with slices of one shape, no two of which share a position.

A flattened [m, m] axis gives each position to a row and to a column, whose slices have the same
shape: two families if they are different nodes, and none that could be pruned if every node is
row and column at once, as in the outer product of a layer with itself.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plprune.graph.linear.roles import LeafAxis
from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Graph

Slots = Mapping[LeafAxis, np.ndarray]  # (leaf, axis) -> positions of one node.


def slices_by_atom(graph: Graph, labels: Labels) -> tuple[dict[Label, Slots], dict[LeafAxis, int]]:
    """Positions of every atom on every parameter axis, and the sizes of the axes."""
    found, full = defaultdict(dict), {}
    for leaf in range(len(graph.paths[0])):
        for axis, vector in enumerate(labels[graph.inputs[leaf]]):
            full[leaf, axis] = len(vector)
            for atom, positions in _positions(labels, vector).items():
                found[atom][leaf, axis] = positions
    return dict(found), full


def _positions(labels, vector) -> dict[Label, np.ndarray]:
    if len(vector) == 0:  # An axis of no size holds no node, and has no runs to split.
        return {}
    unique, inverse = np.unique(labels.atoms.roots(vector), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse, minlength=len(unique))).tolist()
    found = defaultdict(list)
    for root, start, end in zip(unique.tolist(), [0, *ends], ends, strict=False):
        for atom in labels.atoms.of_root(root):
            found[atom].append(order[start:end])
    return {a: r[0] if len(r) == 1 else np.sort(np.concatenate(r)) for a, r in found.items()}


def families(
    graph: Graph, labels: Labels, slots: Mapping[Label, Slots], is_open: Callable[[Label], bool]
) -> tuple[dict[Any, list[Label]], dict[Label, tuple[LeafAxis, int]]]:
    """Atoms by the shape of their slices, whether they are open and their place in products.

    Returns:
      (families, shared): keys of the families begin with the shape, ((leaf, axis), count), ...;
      `shared` holds the atoms that cannot be told apart by place, each with a position that two
      nodes of its family own.
    """
    alike = defaultdict(list)
    for atom, own in slots.items():
        shape = tuple((key, len(own[key])) for key in sorted(own))
        alike[shape, is_open(atom)].append(atom)
    found, shared = {}, {}
    for (shape, opened), atoms in alike.items():
        parts, overlap = [atoms], None
        if opened:
            parts, overlap = _apart(graph, labels, slots, atoms, [key for key, _ in shape])
        found.update({(shape, opened, place): part for place, part in enumerate(parts)})
        if overlap is not None:
            shared.update(dict.fromkeys(atoms, overlap))
    return found, shared


def _apart(graph, labels, slots, atoms, keys):
    """Parts without a common position, where there are any, and a position that is still shared."""
    overlap = _overlap(slots, atoms, keys)
    if overlap is None:
        return [atoms], None
    (leaf, axis), _ = overlap
    places = _places(labels, labels[graph.inputs[leaf]][axis], atoms)
    parts = [[a for a in atoms if places[a] == place] for place in sorted(set(places.values()))]
    left = (_overlap(slots, part, keys) for part in parts)
    return parts, next(filter(None, left), None)


def _overlap(slots, atoms: Sequence[Label], keys) -> tuple[LeafAxis, int] | None:
    """An axis and a position on it that two of the atoms own."""
    if len(atoms) < 2:
        return None
    for key in keys:
        positions = np.concatenate([slots[atom][key] for atom in atoms])
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
