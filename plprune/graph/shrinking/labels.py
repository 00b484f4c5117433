# SPDX-License-Identifier: Apache-2.0
"""First pass: one label per position of every axis of every array in a graph."""

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from plprune.graph.entries import Primitives
from plprune.graph.shrinking.atoms import Atoms, Label, LabelVector, Reason
from plprune.graph.shrinking.widths import Widths
from plprune.graph.tracing import Equation, Graph, Variable


class Reduction(NamedTuple):
    """Axes that an equation folds with an operation whose neutral element is `identity`.

    One term is a sum, maximum, ... of an array's entries; two terms are a contraction, where a
    product of entries is added up. Only atoms that all terms share are folded: a grouped
    convolution's image also has the group's atoms, over which it does not sum.
    """

    equation: Equation
    terms: tuple[tuple[Variable, int], ...]  # (variable, dimension).
    identity: float

    def atoms(self, labels: "Labels") -> frozenset[Label]:
        """Removable atoms that are folded away."""
        members = (labels.atoms.members(labels[v][d]) for v, d in self.terms)
        return frozenset.intersection(*map(frozenset, members))


class Labels:
    """Labels of a graph's axes, as the rules see and extend them."""

    def __init__(self, graph: Graph, num_params: int, primitives: Primitives):
        """Label the whole graph.

        Args:
          graph: From `trace`.
          num_params: The first inputs, whose axes may shrink; those of the others never do.
          primitives: The table of rules.
        """
        self.graph, self.primitives = graph, primitives
        self.atoms = Atoms()
        self.reductions: list[Reduction] = []
        self.feature_groups: dict[Variable, LabelVector] = {}  # Of grouped convolutions' outputs.
        self.positions: dict[Variable, int] = {}  # Variable -> the axis whose position it holds.
        self.choices: dict[Variable, LabelVector] = {}  # Holds a position of an axis so labelled.
        self.ranked: list[LabelVector] = []  # Axes of which argmax and top_k take the winners.
        self.makers: dict[Variable, Equation] = {}  # Variable -> the equation that it comes from.
        self.picks: dict[Variable, Any] = {}  # Output of a gather at fixed positions -> its Pick.
        self._of: dict[Variable, list[LabelVector]] = {}
        for k, variable in enumerate(graph.inputs):
            self._of[variable] = self.fresh(variable)
            if k >= num_params:
                for axis in self._of[variable]:
                    self.atoms.pin(axis, lambda: "an axis of the inputs")
        self.walk(graph)
        for variable in graph.outputs:
            for labels in self[variable]:
                self.atoms.pin(labels, lambda: "an axis of the function's output")

    @cached_property
    def widths(self) -> Widths:
        """Which sums have their width written next to them."""
        return Widths(self.graph, self.primitives)

    def __getitem__(self, variable: Variable) -> list[LabelVector]:
        """Label vectors of a variable's dimensions; constants get fresh ones."""
        if variable not in self._of:
            self._of[variable] = self.fresh(variable)
        return self._of[variable]

    def __setitem__(self, variable: Variable, labels: Sequence[LabelVector]) -> None:
        self._of[variable] = list(labels)

    def walk(self, graph: Graph) -> None:
        """Apply the rule of every equation."""
        for equation in graph.equations:
            self.makers.update(dict.fromkeys(equation.outputs, equation))
            rule = self.primitives.of(equation).label
            if rule is None:
                self.refuse(equation)
            else:
                rule(self, equation)
            for axis in (x for v in equation.outputs for x in self[v] if len(x) == 1):
                self.pin(axis, equation, "{} picks this one position of it")

    def enter(self, body: Graph, operands: Sequence[Sequence[LabelVector]]) -> None:
        """Label a body whose inputs are labelled like these."""
        for variable, axes in zip(body.inputs, operands, strict=True):
            self[variable] = axes
        self.walk(body)

    def refuse(self, equation: Equation) -> None:
        """Nothing that this equation touches can shrink."""
        if not any(prod(self.shape(v)) > 1 for v in equation.inputs):
            for output in equation.outputs:  # Depends on no array: evaluated in full, then cut.
                self[output] = self.fresh(output)
            return
        has_rule = equation.name in self.primitives and self.primitives[equation.name].label
        option = self.primitives.unread(equation) if has_rule else None
        what = f"no rule for the {option} of {{}}" if option else "no rule for {}"
        for variable in (*equation.inputs, *equation.outputs):
            for x in self[variable]:
                self.pin(x, equation, f"{what}; rewrite it with primitives that have one")

    def fresh(self, variable: Variable) -> list[LabelVector]:
        """Labels of a variable all of whose axes are new."""
        return [self.atoms.fresh(size) for size in self.shape(variable)]

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a variable."""
        return self.graph.shape(variable)

    def hold_positions(self, variable: Variable, axis: int) -> None:
        """A variable holds the positions of its own axis, if its dtype can."""
        if self._counts(variable, self.shape(variable)[axis]):
            self.positions[variable] = axis

    def hold_choice(self, variable: Variable, axis: LabelVector) -> None:
        """A variable holds a position of an axis, if its dtype can."""
        if self._counts(variable, len(axis)):
            self.choices[variable] = axis

    def _counts(self, variable, size):
        """Whether the dtype tells `size` positions apart."""
        dtype, numbers = self.graph.avals[variable].dtype, np.arange(size)
        with np.errstate(all="ignore"):
            return bool((numbers.astype(dtype).astype(numbers.dtype) == numbers).all())

    def unify(self, left: LabelVector, right: LabelVector, equation: Equation) -> None:
        """Positions of two axes go together because of an equation."""
        self.atoms.unify(left, right, lambda: self._joined(equation, len(left)))

    def _joined(self, equation, size):
        """Why an axis that an equation joins with one without nodes is fixed, and what made it."""
        text = f"{equation.name} at {equation.source} joins it with an axis that cannot shrink"
        made = self._without_nodes(equation, size)
        return f"{text}, which {made.name} at {made.source} makes" if made else text

    def _without_nodes(self, equation, size) -> Equation | None:
        """The first equation behind an operand, of a size along an axis, that has no nodes there.

        Its own operands all have nodes along their axes, or the ends of them cannot be told.
        """
        found = None
        while True:
            makers = (self.makers.get(v) for v in equation.inputs if self._is_bare(v, size))
            equation = next(filter(None, makers), None)
            if equation is None:
                return found
            found, size = equation, None

    def _is_bare(self, variable, size):
        axes = (x for x in self._of.get(variable, ()) if len(x) > 1)
        return any(not x.any() for x in axes if size in (None, len(x)))

    def unify_arrays(self, left: Variable, right: Variable, equation: Equation) -> None:
        """All axes of two arrays of one shape go together."""
        for x, y in zip(self[left], self[right], strict=True):
            self.unify(x, y, equation)

    def tie(self, old: Variable, new: Variable) -> None:
        """An output that takes an input's place, on which it need not depend, shrinks with it."""
        for x, y in zip(self[old], self[new], strict=True):
            self.atoms.unify(x, y, lambda: "its new value has an axis that cannot shrink")

    def pin_moved_along(self, equation: Equation, touched: Sequence[int], text: str) -> None:
        """Axes of the first operand that an equation moves along are fixed, the others pass."""
        axes = self[equation.inputs[0]]
        for d in touched:
            self.pin(axes[d], equation, text)
        for output in equation.outputs:
            self[output] = [
                x if d not in touched and n == len(x) else np.zeros(n, np.int64)
                for d, (x, n) in enumerate(zip(axes, self.shape(output), strict=True))
            ]

    def pin(self, labels: LabelVector, equation: Equation, text: str) -> None:
        """Never remove positions of this axis; `text` names the equation with {}."""
        self.atoms.pin(labels, at(equation, text))


def at(equation: Equation, text: str) -> Reason:
    """Reason whose {} stands for the primitive and its source line."""
    return lambda: text.format(f"{equation.name} at {equation.source}")
