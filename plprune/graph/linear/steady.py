# SPDX-License-Identifier: Apache-2.0
"""Where the outputs' derivative is one and the same for every example.

Behind a linear head under a fixed combination of its outputs, for one: the derivative there is a
product of parameters alone. Derived in docs/mathematics/graph.md.
"""

from collections.abc import Collection, Sequence

from plprune.graph.linear.origins import is_structural
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Equation, Graph, Variable

_SUMS = frozenset({"reduce_sum", "cumsum"})  # Linear, besides what the table of primitives says.


def steady(graph: Graph, num_leaves: int) -> frozenset[Variable]:
    """Variables in which the derivative of the outputs does not depend on the example.

    Only variables where this is plain to see: all ways from them to the outputs are linear in what
    the example moves, with factors that it does not move.

    Args:
      graph: Of ``(leaves, example) -> outputs``.
      num_leaves: How many of its inputs are leaves; the others are the example.
    """
    moved = set(graph.inputs[num_leaves:])
    for equation in graph.equations:
        if not moved.isdisjoint(equation.inputs):
            moved.update(equation.outputs)
    changing: set[Variable] = set()
    for equation in reversed(graph.equations):
        onward = changing.isdisjoint(equation.outputs)
        changing.update(
            v
            for k, v in enumerate(equation.inputs)
            if not (onward and _is_fixed(graph, equation, k, moved))
        )
    return frozenset(v for e in graph.equations for v in e.outputs if v not in changing)


def _is_fixed(graph: Graph, equation: Equation, position: int, moved: Collection[Variable]) -> bool:
    """Whether the equation's derivative in an operand is the same for all examples."""
    others = [v for k, v in enumerate(equation.inputs) if k != position]
    if not _any(others, moved) and equation.inputs[position] not in moved:
        return True
    linear = PRIMITIVES.of(equation).linear
    if linear.joins is not None:  # A sum, or pieces put together or chosen among.
        return position >= linear.joins and not _any(equation.inputs[: linear.joins], moved)
    if _any(others, moved):
        return False
    if equation.name in _SUMS or linear.contracts is not None or position in linear.scales:
        return True
    return position == 0 and is_structural(graph, equation)


def _any(variables: Sequence[Variable], moved: Collection[Variable]) -> bool:
    return any(v in moved for v in variables)
