# SPDX-License-Identifier: Apache-2.0
"""Leaves that activations are contracted with, as the matrices that they are there."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from plprune.graph.linear.biases import added_leaf
from plprune.graph.linear.origins import Origin, origins
from plprune.graph.linear.reading import readings
from plprune.graph.linear.taps import factoring, leaf_uses
from plprune.graph.tracing import Equation, Graph, Variable

# A permutation of axes, or the shapes before and after a reshape.
Move = tuple[tuple[int, ...], None] | tuple[tuple[int, ...], tuple[int, ...]]


class Layout(NamedTuple):
    """How entries of one array come to lie in another: moves, which can be undone."""

    moves: tuple[Move, ...]

    def to(self, array: Any) -> Any:
        """An array of either library, moved."""
        for first, second in self.moves:
            array = array.transpose(first) if second is None else array.reshape(second)
        return array

    def back(self, array: Any) -> Any:
        """What `to` makes this of."""
        for first, second in reversed(self.moves):
            if second is None:
                array = array.transpose(tuple(int(k) for k in np.argsort(first)))
            else:
                array = array.reshape(first)
        return array


class Product(NamedTuple):
    """One equation ``rows [g, s, i] @ matrix [g, i, o]``, whose right factor is a leaf."""

    leaf: int  # Position among the graph's inputs.
    rows: Callable[[Sequence[Any]], Any]  # The equation's operands -> [g, s, i].
    matrix: Layout  # The leaf -> [g, i, o].
    operand: tuple[int, Layout]  # Position of the right factor, and how it is that matrix.
    outputs: tuple[int, ...]  # Sizes of [g, o] at the axes of the output, 1 at the positions.


class Bias(NamedTuple):
    """A leaf that is added, and only added, to what another one produces."""

    leaf: int
    spread: Layout  # The leaf -> its values at the axes of the output, 1 at the positions.


def products(graph: Graph, axes: Mapping[int, frozenset[int]]) -> dict[int, Product]:
    """Equation -> the product that it is, for leaves of which given axes are contracted.

    Args:
      graph: From `trace`.
      axes: Leaf, a position among `graph.inputs`, -> axes that are among the rows of its matrix.

    Returns:
      All uses of every leaf that is used in no other way. Products in feature groups are left out.
    """
    found = origins(graph, axes)
    result, refused = {}, set()
    for index, (leaf, _) in readings(graph, axes).items():
        equation = graph.equations[index]
        product = _product(graph, equation, found)
        if product is None:
            refused.add(leaf)
        else:
            result[index] = product
    return {index: product for index, product in result.items() if product.leaf not in refused}


def _product(graph: Graph, equation: Equation, found: Mapping[Variable, Origin]) -> Product | None:
    (position,) = (k for k, v in enumerate(equation.inputs) if v in found)
    variable = equation.inputs[position]
    shapes = [graph.shape(v) for v in (*equation.inputs, *equation.outputs)]
    form = factoring(equation, position, shapes)
    if form is None or form.is_lookup:
        return None
    way = _way(graph, found[variable])
    if way is None:
        return None
    size_g, _, size_i, size_o = form.sizes
    shape = shapes[position]
    order = _rows_first(equation, position, len(shape))
    ordered = tuple(shape[d] for d in order)
    own = Layout(((order, None), (ordered, (size_g, size_i, size_o))))
    spread = tuple(n if role == "o" else 1 for n, role in zip(shapes[2], form.roles, strict=True))

    def rows(operands):
        return form.operand(operands[form.other])

    return Product(
        found[variable].leaf, rows, Layout((*way.moves, *own.moves)), (position, own), spread
    )


def _rows_first(equation, position, rank) -> tuple[int, ...]:
    """Axes of the right factor: those of groups, those that are summed over, the produced ones."""
    if equation.name == "conv_general_dilated":
        made, taken, *window = equation.params["dimension_numbers"].rhs_spec
        return (*window, taken, made)
    contract, batch = equation.params["dimension_numbers"]
    first = (*map(int, batch[position]), *map(int, contract[position]))
    return (*first, *(d for d in range(rank) if d not in first))


def _way(graph: Graph, origin: Origin) -> Layout | None:
    """The moves from a leaf to a variable; None where they repeat or leave out entries."""
    moves, shape = [], graph.shape(graph.inputs[origin.leaf])
    for step in origin.equations:
        after = graph.shape(step.outputs[0])
        if prod(after) != prod(shape):
            return None
        if step.name == "transpose":
            moves.append((tuple(map(int, step.params["permutation"])), None))
        elif step.name != "convert_element_type":
            moves.append((shape, after))
        shape = after
    return Layout(tuple(moves))


def biases(graph: Graph, found: Mapping[int, Product], num_params: int) -> dict[int, Bias]:
    """Equation -> the bias of its output, for products that are the one use of their leaf.

    Args:
      graph: From `trace`.
      found: From `products`.
      num_params: The first inputs, among which biases are looked for.
    """
    places = origins(graph, range(num_params))
    uses = leaf_uses(graph, places, num_params)
    result = {}
    for index, product in found.items():
        if len(uses[product.leaf]) > 1:
            continue
        leaf = added_leaf(graph, places, uses, product.leaf)
        if leaf is None:
            continue
        (use,) = uses[leaf]
        variable = graph.equations[use.equation].inputs[use.position]
        way = _way(graph, places[variable])
        if way is not None:
            result[index] = Bias(leaf, way)
    return result
