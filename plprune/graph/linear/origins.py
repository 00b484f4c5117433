# SPDX-License-Identifier: Apache-2.0
"""Which variables are a parameter leaf, moved around but not yet computed with."""

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp

from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Equation, Graph, Variable


class Origin(NamedTuple):
    """A variable that is a parameter leaf moved around by structural primitives only."""

    leaf: int  # Position among the graph's inputs.
    axes: tuple[frozenset[int], ...]  # Per dimension of the variable: the leaf's axes it runs over.
    equations: tuple[Equation, ...]  # The chain from the leaf to the variable, in order.


def origins(graph: Graph, leaves: Iterable[int]) -> dict[Variable, Origin]:
    """Origin of every variable that is one of `leaves` through structural primitives only.

    Args:
      graph: From `trace`.
      leaves: Positions among `graph.inputs`.
    """
    found = {}
    for leaf in leaves:
        variable = graph.inputs[leaf]
        axes = tuple(frozenset({axis}) for axis in range(len(graph.shape(variable))))
        found[variable] = Origin(leaf, axes, ())
    extend_origins(graph, found)
    return found


def extend_origins(graph: Graph, found: dict[Variable, Origin]) -> None:
    """Push the origins of some variables of `graph` through its structural equations, in place."""
    for equation in graph.equations:
        if is_structural(graph, equation) and equation.inputs[0] in found:
            origin = found[equation.inputs[0]]
            axes = moved_axes(graph, equation, origin.axes)
            chain = (*origin.equations, equation)
            found[equation.outputs[0]] = Origin(origin.leaf, axes, chain)


def is_structural(graph: Graph, equation: Equation) -> bool:
    """Whether an equation only moves the entries of its first operand, or casts them to floats.

    A cast to integers does neither: it has no derivative, and does not scale with its operand.
    """
    if PRIMITIVES.of(equation).linear.moves is None:
        return False
    source, target = (
        jnp.issubdtype(graph.avals[v].dtype, jnp.inexact)
        for v in (equation.inputs[0], equation.outputs[0])
    )
    return target or not source


def moved_axes(
    graph: Graph, equation: Equation, axes: tuple[frozenset[int], ...]
) -> tuple[frozenset[int], ...]:
    """Per dimension of a structural equation's output: the marks of the operand's dimensions."""
    moves = PRIMITIVES.of(equation).linear.moves
    return axes if moves is None else moves(graph, equation, axes)
