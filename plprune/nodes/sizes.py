# SPDX-License-Identifier: Apache-2.0
"""What a shrunk model holds and computes, counted from sizes alone, without compiling it."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax
import numpy as np

from plprune.graph.linear.roles import contracted, is_contraction
from plprune.graph.tracing import Equation, Graph
from plprune.nodes.cutting import kept_axes, small_shapes
from plprune.nodes.discovery import Found, analyse, shape_of
from plprune.nodes.matching import match_leaves
from plprune.types import Apply, Inputs, Keep, NodeGroups, Params

Count = Callable[[Keep], float]  # Of the model that is shrunk to these nodes.


def parameter_counts(params: Params, groups: NodeGroups) -> tuple[Count, Count]:
    """Functions of `keep`: parameters and their bytes after `shrink`."""
    shapes = [shape_of(leaf) for leaf in jax.tree.leaves(params)]
    places = match_leaves(params, groups).positions()

    def sizes(keep):
        small = small_shapes(kept_axes(groups, keep))
        return [prod(small[places[k]] if k in places else s.shape) for k, s in enumerate(shapes)]

    def stored(keep):
        widths = (s.dtype.itemsize for s in shapes)
        return sum(n * width for n, width in zip(sizes(keep), widths, strict=True))

    return (lambda keep: sum(sizes(keep))), stored


def modelled_flops(
    apply: Apply, params: Params, groups: NodeGroups, inputs: Inputs, *, every_step: bool = False
) -> Count:
    """A function of `keep`: about the operations of the resized model, up to a factor near 1.

    Contractions count twice their products, everything else its entries, and loops once, as the
    compiler counts before it simplifies; with `every_step`, scans count as often as they step. One
    analysis; a call takes microseconds per equation.
    """
    shapes = jax.tree.map(shape_of, (params, inputs))
    found = analyse(apply, *shapes, mode=groups.mode, statistics=groups.statistics)
    axes = _Axes(found)
    terms = [
        (times * factor, own)
        for equation, times in _repeated(found.graph, every_step)
        for factor, own in _terms(found.graph, equation, axes)
    ]

    def count(keep):
        lengths = axes.lengths(keep)
        return float(sum(factor * prod(lengths[k] for k in own) for factor, own in terms))

    return count


def _repeated(graph: Graph, every_step: bool, times: int = 1) -> Iterator[tuple[Equation, int]]:
    """The equations of a graph and of its bodies, and how often they count."""
    for equation in graph.equations:
        yield equation, times
        steps = equation.params.get("length", 1) if every_step and equation.name == "scan" else 1
        for body in equation.subgraphs:
            yield from _repeated(body, every_step, times * steps)


class _Axes:
    """Lengths of the axes of a labelled graph, as functions of the nodes that stay."""

    def __init__(self, found: Found):
        self.labels = found.labels
        self.sizes = {name: len(atoms) for name, atoms in found.atoms.items()}
        everything = [atom for atoms in found.atoms.values() for atom in atoms]
        self.node_of = {atom: k for k, atom in enumerate(everything)}
        self.number: dict[int, int] = {}  # Identity of a vector of labels -> place among `nodes`.
        self.vectors: list[np.ndarray] = []  # Held, so that identities stay theirs.
        self.nodes: list[np.ndarray] = []  # [position, factor] -> node; the last one always stays.

    def of(self, variable: int, dims: Any = None) -> list[int]:
        """Numbers of the axes of a variable, or of some of them."""
        vectors = self.labels[variable]
        return [self._number(vectors[d]) for d in (range(len(vectors)) if dims is None else dims)]

    def _number(self, vector):
        if id(vector) not in self.number:
            self.number[id(vector)] = len(self.nodes)
            self.vectors.append(vector)
            self.nodes.append(self._nodes(vector))
        return self.number[id(vector)]

    def _nodes(self, vector):
        unique, inverse = np.unique(self.labels.atoms.roots(vector), return_inverse=True)
        own = [
            [self.node_of[a] for a in self.labels.atoms.basic(x) if a in self.node_of]
            for x in unique.tolist()
        ]
        table = np.full((len(own), max(map(len, own), default=0)), -1)
        for row, nodes in zip(table, own, strict=True):
            row[: len(nodes)] = nodes
        return table[inverse.reshape(-1)]

    def lengths(self, keep: Keep) -> list[int]:
        """Of every axis, in the order of their numbers."""
        stays = [keep.get(name, np.ones(n, bool)) for name, n in self.sizes.items()]
        table = np.concatenate([*stays, [True]])
        return [int(table[nodes].all(axis=1).sum()) for nodes in self.nodes]


def _terms(graph: Graph, equation: Equation, axes: _Axes) -> list[tuple[int, list[int]]]:
    """(factor, axes): operations of an equation are the sum of factors times lengths."""
    if equation.subgraphs:
        return []
    results = [axes.of(v) for v in equation.outputs]
    if not is_contraction(equation):
        return [(1, own) for own in results]
    summed, window = axes.of(equation.inputs[1], contracted(equation)[1]), 1
    if equation.name == "conv_general_dilated":
        spec = equation.params["dimension_numbers"].rhs_spec
        window = prod(graph.shape(equation.inputs[1])[d] for d in spec[2:])
    return [(2 * window, [*results[0], *summed])]
