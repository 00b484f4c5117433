# SPDX-License-Identifier: Apache-2.0
"""Whether the width of an axis is written near a sum over it, as the divisor of a mean is.

A literal does not say where it comes from. So any constant counts that looks like the width and is
connected with the sum by arithmetic alone, before or after it; products with matrices separate.
"""

from collections.abc import Container, Iterator, Sequence
from math import prod, sqrt

import jax.numpy as jnp
import numpy as np

from plprune.graph.entries import Primitives
from plprune.graph.shrinking.known import entries
from plprune.graph.tracing import Equation, Graph, Variable, all_equations

_TOLERANCE = 0.01  # Relative; of constants in bfloat16.
# Next to what is computed, a constant in one of these is a threshold or an offset, not a divisor.
_OFFSETS = frozenset("add add_any sub max min clamp select_n eq ne lt le gt ge".split())  # noqa: SIM905
_CHOICES = frozenset("select_n max min".split())  # noqa: SIM905


class Widths:
    """Constants by the arithmetic that they are part of.

    Args:
      graph: From `trace`.
      primitives: The table of rules.
    """

    def __init__(self, graph: Graph, primitives: Primitives):
        """One pass over the equations, those of bodies included."""
        self.graph, self.primitives = graph, primitives
        self._parents: dict[Variable, Variable] = {}
        self._constants: dict[Variable, set[float]] = {}
        seen: list[tuple[Variable, float]] = []
        equations = tuple(all_equations(graph))
        slopes = _slopes(equations, graph.constants)
        for equation in equations:
            self._join(equation)
            if slopes.isdisjoint(equation.outputs):
                seen += self._factors(equation)
        for variable, value in seen:
            self._constants.setdefault(self._root(variable), set()).add(value)

    def written(self, equation: Equation) -> bool:
        """Whether the number of entries that a fold adds up stands in the function around it."""
        shape = self.graph.shape(equation.inputs[0])
        folded = [shape[d] for d in equation.params["axes"]]
        around = (prod(shape[d:]) for d in range(len(shape)))  # Folded in several steps.
        looks = {x for n in {*folded, prod(folded), *around} for x in _forms(n)}
        found = self._constants.get(self._root(equation.outputs[0]), ())
        return any(abs(x - y) <= _TOLERANCE * y for x in found for y in looks)

    def _root(self, variable: Variable) -> Variable:
        while (parent := self._parents.get(variable, variable)) != variable:
            above = self._parents.get(parent, parent)
            self._parents[variable] = variable = above
        return variable

    def _join(self, equation):
        """Operands and results are part of one expression, and so are those of bodies."""
        for body in equation.subgraphs:  # Branches and loops have operands of their own in front.
            ends = ((body.inputs, equation.inputs), (body.outputs, equation.outputs))
            for inner, outer in ends:
                for x, y in zip(reversed(inner), reversed(outer), strict=False):
                    self._parents[self._root(x)] = self._root(y)
        contracts = self.primitives.of(equation).linear.contracts is not None
        if contracts or equation.subgraphs or equation.name == "gather":
            return
        first, *others = (*equation.outputs, *equation.inputs)
        for other in others:
            self._parents[self._root(other)] = self._root(first)

    def _factors(self, equation) -> Iterator[tuple[Variable, float]]:
        """Constants that may scale what is computed."""
        constants = [v for v in equation.inputs if v in self.graph.constants]
        if equation.name in _OFFSETS and len(constants) < len(equation.inputs):
            return
        if equation.name == "pow":
            constants = [v for v in constants if v != equation.inputs[1]]
        for variable in constants:
            numbers = entries(self.graph.constants[variable])
            if numbers is None or not numbers.size or not jnp.issubdtype(numbers.dtype, jnp.number):
                continue
            value = abs(complex(numbers.flat[0]))
            if np.isfinite(value) and value not in (0, 1) and (numbers == numbers.flat[0]).all():
                yield variable, value


def _slopes(equations: Sequence[Equation], constants: Container[Variable]) -> set[Variable]:
    """Multiples of arrays that are chosen entry by entry in place of them, as leaky ReLUs do.

    Their factors are no divisors: .2 is that of graph attention at any width, of 5 or 6 as well.
    """
    makers = {v: equation for equation in equations for v in equation.outputs}
    found: set[Variable] = set()

    def is_cast(variable):
        return variable in makers and all(v in constants for v in makers[variable].inputs)

    for equation in equations:
        if equation.name in _CHOICES:
            one, other = equation.inputs[-2:]
            for multiple, plain in ((one, other), (other, one)):
                maker = makers.get(multiple)
                if maker is not None and maker.name == "mul" and plain in maker.inputs:
                    found |= {multiple, *(v for v in maker.inputs if is_cast(v))}
    return found


def _forms(width: int) -> Sequence[float]:
    """What a function that knows a width is written with: it, one less, roots and inverses."""
    counts = [float(n) for n in (width, width - 1) if n > 1]
    roots = [sqrt(n) for n in counts]
    return [*counts, *roots, *(1 / n for n in counts), *(1 / n for n in roots)]
