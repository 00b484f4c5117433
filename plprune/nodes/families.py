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

from plprune.graph.atoms import Label
from plprune.graph.labels import Labels
from plprune.graph.roles import LeafAxis
from plprune.graph.tracing import Graph

Slots = Mapping[LeafAxis, np.ndarray]  # (leaf, axis) -> positions of one node.


def families(
    graph: Graph, labels: Labels, slots: Mapping[Label, Slots], is_open: Callable[[Label], bool]
) -> tuple[dict[Any, list[Label]], dict[Label, tuple[LeafAxis, int]]]:
    """Atoms by the shape of their slices, whether they are open and their place in products.

    Returns:
      (families, shared): keys of the families begin with the shape, ((leaf, axis), count), ...;
      `shared` holds the atoms that cannot be told apart by place, each with a position that two
      nodes of its family own.
    """
    found, shared = defaultdict(list), {}
    alike = defaultdict(list)
    for atom, own in slots.items():
        shape = tuple((key, len(own[key])) for key in sorted(own))
        alike[shape, is_open(atom)].append(atom)
    for (shape, opened), atoms in alike.items():
        keys = [key for key, _ in shape]
        overlap = _overlap(slots, atoms, keys)
        places = dict.fromkeys(atoms, 0)
        if overlap is not None:
            vector = labels[graph.inputs[overlap[0][0]]][overlap[0][1]]
            places = _places(labels, vector, atoms)
        parts = defaultdict(list)
        for atom in atoms:
            parts[places.get(atom, 0)].append(atom)
        for part in parts.values():
            overlap = _overlap(slots, part, keys)
            if overlap is not None:
                shared.update(dict.fromkeys(atoms, overlap))
        found.update({(shape, opened, place): part for place, part in sorted(parts.items())})
    return found, shared


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
    """Which factor of the products along an axis each atom is; nothing if one is several."""
    family, places = set(atoms), {}
    for root in np.unique(labels.atoms.roots(vector)).tolist():
        for place, atom in enumerate(a for a in labels.atoms.basic(root) if a in family):
            if places.setdefault(atom, place) != place:
                return {}
    return places
