# SPDX-License-Identifier: Apache-2.0
"""First pass: one label per position of every axis of every array in a graph."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from plprune.graph.atoms import Atoms, Label, LabelVector, Reason
from plprune.graph.parameters import rule_of
from plprune.graph.tracing import Equation, Graph, Variable

Rule = Callable[["Labels", Equation], None]


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

    def __init__(self, graph: Graph, num_params: int, rules: dict[str, Rule], fallback: Rule):
        """Label the whole graph.

        Args:
          graph: From `trace`.
          num_params: The first inputs, whose axes may shrink; those of the others never do.
          rules: Primitive name -> rule.
          fallback: The rule of every other primitive.
        """
        self.graph, self.num_params = graph, num_params
        self.atoms = Atoms()
        self.reductions: list[Reduction] = []
        self.feature_groups: dict[Variable, LabelVector] = {}  # Of grouped convolutions' outputs.
        self.positions: dict[Variable, int] = {}  # Variable -> the axis whose position it holds.
        self.choices: dict[Variable, LabelVector] = {}  # Holds a position of an axis so labelled.
        self.ranked: list[LabelVector] = []  # Axes of which argmax and top_k take the winners.
        self.makers: dict[Variable, Equation] = {}  # Variable -> the equation that it comes from.
        self.picks: dict[Variable, Any] = {}  # Output of a gather at fixed positions -> its Pick.
        self._rules, self._fallback = rules, fallback
        self._of: dict[Variable, list[LabelVector]] = {}
        for k, variable in enumerate(graph.inputs):
            shape = graph.shape(variable)
            self._of[variable] = [self.atoms.fresh(size) for size in shape]
            if k >= num_params:
                for axis in self._of[variable]:
                    self.atoms.pin(axis, lambda: "an axis of the inputs")
        self.walk(graph)
        for variable in graph.outputs:
            for labels in self[variable]:
                self.atoms.pin(labels, lambda: "an axis of the function's output")

    def __getitem__(self, variable: Variable) -> list[LabelVector]:
        """Label vectors of a variable's dimensions; constants get fresh ones."""
        if variable not in self._of:
            self._of[variable] = [self.atoms.fresh(size) for size in self.graph.shape(variable)]
        return self._of[variable]

    def __setitem__(self, variable: Variable, labels: Sequence[LabelVector]) -> None:
        self._of[variable] = list(labels)

    def walk(self, graph: Graph) -> None:
        """Apply the rule of every equation."""
        for equation in graph.equations:
            self.makers.update(dict.fromkeys(equation.outputs, equation))
            (rule_of(self._rules, equation) or self._fallback)(self, equation)
            for axis in (x for v in equation.outputs for x in self[v] if len(x) == 1):
                self.pin(axis, equation, "{} picks this one position of it")

    def has_rule(self, name: str) -> bool:
        """Whether there is a rule for a primitive, if only for some values of its parameters."""
        return name in self._rules

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a variable."""
        return self.graph.shape(variable)

    def unify(self, left: LabelVector, right: LabelVector, equation: Equation) -> None:
        """Positions of two axes go together because of an equation."""
        self.atoms.unify(left, right, at(equation, "{} joins it with an axis that cannot shrink"))

    def unify_arrays(self, left: Variable, right: Variable, equation: Equation) -> None:
        """All axes of two arrays of one shape go together."""
        for x, y in zip(self[left], self[right], strict=True):
            self.unify(x, y, equation)

    def pin(self, labels: LabelVector, equation: Equation, text: str) -> None:
        """Never remove positions of this axis; `text` names the equation with {}."""
        self.atoms.pin(labels, at(equation, text))


def at(equation: Equation, text: str) -> Reason:
    """Reason whose {} stands for the primitive and its source line."""
    return lambda: text.format(f"{equation.name} at {equation.source}")
