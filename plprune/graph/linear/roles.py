# SPDX-License-Identifier: Apache-2.0
"""Which parameter axes are contracted against activations, and which produce them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from plprune.graph.linear.origins import is_structural, moved_axes
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Equation, Graph, Variable, scan_counts

Axes = tuple[frozenset[int], ...]  # Per dimension of a variable: the leaf's axes it runs over.
LeafAxis = tuple[int, int]  # (position of the leaf among the inputs, axis).


class Roles(NamedTuple):
    """Uses of the axes of parameter leaves."""

    consumed: frozenset[LeafAxis]  # Contracted against something that is not a parameter.
    produced: frozenset[LeafAxis]  # Used in any other way.
    readers: dict[Variable, int]  # Contraction's output -> operand that is the parameter, 0 or 1.
    makers: dict[int, tuple[int, str]]  # Leaf -> (order, primitive) of the contraction it is in.
    order: dict[int, int]  # Leaf -> order of its first use.
    stepped: frozenset[LeafAxis]  # Axes along which layers are stacked, which a scan goes through.


def roles(graph: Graph, num_params: int) -> Roles:
    """Roles of the axes of the first `num_params` inputs.

    A leaf is followed through moves, selections and multiplication by constants: scaling a slice
    of it then scales the same slice of the contraction's operand.
    """
    walk = _Walk()
    leaves = {}
    for leaf, variable in enumerate(graph.inputs[:num_params]):
        axes = tuple(frozenset({axis}) for axis in range(len(graph.shape(variable))))
        leaves[variable] = (leaf, axes)
    walk.run(graph, leaves)
    return Roles(
        frozenset(walk.consumed), frozenset(walk.produced), walk.readers, walk.makers, walk.order,
        frozenset(walk.stepped),
    )  # fmt: skip


class _Walk:
    def __init__(self):
        self.consumed, self.produced, self.stepped = set(), set(), set()
        self.readers, self.makers, self.order = {}, {}, {}
        self.constants: set[Variable] = set()  # Depend on no argument.
        self.count = 0

    def run(self, graph: Graph, leaves: dict[Variable, tuple[int, Axes]]) -> None:
        self.constants.update(graph.constants)
        for equation in graph.equations:
            self.count += 1
            for leaf in (leaves[v][0] for v in equation.inputs if v in leaves):
                self.order.setdefault(leaf, self.count)
            if self.constants.issuperset(equation.inputs):
                self.constants.update(equation.outputs)
            elif equation.subgraphs:
                self.enter(equation, leaves)
            elif _follows(graph, equation, leaves, self.constants):
                source = next(v for v in equation.inputs if v in leaves)
                leaf, axes = leaves[source]
                if is_structural(graph, equation):
                    axes = moved_axes(graph, equation, axes)
                leaves.update(dict.fromkeys(equation.outputs, (leaf, axes)))
            elif is_contraction(equation):
                self.contract(equation, leaves)
            else:
                self.use(equation.inputs, leaves)
        self.use(graph.outputs, leaves)

    def use(self, variables, leaves):
        """Every axis is used as it is."""
        for v in variables:
            if v in leaves:
                self.mark(self.produced, leaves[v], range(len(leaves[v][1])))

    def mark(self, role, origin, dims):
        leaf, axes = origin
        role.update((leaf, axis) for d in dims for axis in axes[d])

    def contract(self, equation, leaves):
        owned = [v in leaves for v in equation.inputs]
        for v in equation.inputs:
            if v in leaves:
                self.makers.setdefault(leaves[v][0], (self.count, equation.name))
        if all(owned):
            self.use(equation.inputs, leaves)
            return
        for k, (v, dims) in enumerate(zip(equation.inputs, contracted(equation), strict=True)):
            if v in leaves:
                self.readers[equation.outputs[0]] = k
                self.mark(self.consumed, leaves[v], dims)
                rest = [d for d in range(len(leaves[v][1])) if d not in dims]
                self.mark(self.produced, leaves[v], rest)

    def enter(self, equation, leaves):
        """Follow the leaves into sub-graphs; a carried leaf is not followed."""
        for body, operands, skipped in _operands(equation):
            inner = {}
            for v, name in zip(operands, body.inputs, strict=False):
                if v in leaves:
                    leaf, axes = leaves[v]
                    inner[name] = (leaf, axes[1:] if v in skipped else axes)
            self.run(body, inner)
            rows = [leaves[v] for v in skipped if v in leaves]
            if any(leaf in self.makers for leaf, _ in rows):  # Else it steps through data.
                self.stepped.update((leaf, *axes[0]) for leaf, axes in rows if len(axes[0]) == 1)
        if not list(_operands(equation)):
            self.use(equation.inputs, leaves)
        elif equation.name == "scan":
            start, carried = scan_counts(equation)
            self.use(equation.inputs[start : start + carried], leaves)


def _operands(equation: Equation) -> Iterator[tuple[Graph, tuple[Variable, ...], frozenset]]:
    """(body, its operands, operands that lose their first axis); nothing for while."""
    if equation.name == "scan":
        fixed = sum(scan_counts(equation))
        yield equation.subgraphs[0], equation.inputs, frozenset(equation.inputs[fixed:])
    elif equation.name == "cond":
        for body in equation.subgraphs:
            yield body, equation.inputs[1:], frozenset()
    elif equation.name in ("custom_jvp_call", "custom_vjp_call"):
        yield equation.subgraphs[0], equation.inputs, frozenset()


def is_contraction(equation: Equation) -> bool:
    """Whether products of entries are summed up."""
    return PRIMITIVES.of(equation).linear.contracts is not None


def contracted(equation: Equation) -> tuple[Sequence[int], ...]:
    """Dimensions of each operand that a contraction sums over."""
    sums = PRIMITIVES.of(equation).linear.contracts
    return ((), ()) if sums is None else sums(equation)


def _follows(graph, equation, leaves, constants):
    """Whether the output is the leaf moved, selected or multiplied by constants."""
    owned = [k for k, v in enumerate(equation.inputs) if v in leaves]
    if len(owned) != 1:
        return False
    if is_structural(graph, equation):
        return True
    others = [v for v in equation.inputs if v not in leaves]
    scales = PRIMITIVES.of(equation).linear.scales
    return owned[0] in scales and constants.issuperset(others)
