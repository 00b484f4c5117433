# SPDX-License-Identifier: Apache-2.0
"""Which parameter axes are contracted against activations, and which produce them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from plprune.graph.linear.origins import is_structural, moved_axes
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.rules.loops import dealt, parted
from plprune.graph.shrinking.known import entries
from plprune.graph.tracing import Equation, Graph, Variable

Axes = tuple[frozenset[int], ...]  # Per dimension of a variable: the leaf's axes it runs over.
LeafAxis = tuple[int, int]  # (position of the leaf among the inputs, axis).
# The leaves, each with its axes, that a variable is linear in: it scales where all of them do.
Parts = tuple[tuple[int, Axes], ...]


class Roles(NamedTuple):
    """Uses of the axes of parameter leaves."""

    consumed: frozenset[LeafAxis]  # Contracted against something that is not a parameter.
    produced: frozenset[LeafAxis]  # Used in any other way.
    readers: dict[Variable, int]  # Contraction's output -> operand that is the parameter, 0 or 1.
    makers: dict[int, tuple[int, str]]  # Leaf -> (order, primitive) of the contraction it is in.
    order: dict[int, int]  # Leaf -> order of its first use.
    stepped: frozenset[LeafAxis]  # Axes along which layers are stacked, which a scan goes through.
    numbered: frozenset[LeafAxis]  # The same, where a loop reads its layer by a number.


def roles(graph: Graph, num_params: int) -> Roles:
    """Roles of the axes of the first `num_params` inputs.

    A leaf is followed through moves, selections, sums with other leaves and multiplication by what
    depends on no input: scaling a slice of it, and of the leaves that it is added to, then scales
    the same slice of the contraction's operand.
    """
    walk = _Walk(graph)
    parts: dict[Variable, Parts] = {}
    for leaf, variable in enumerate(graph.inputs[:num_params]):
        axes = tuple(frozenset({axis}) for axis in range(len(graph.shape(variable))))
        parts[variable] = ((leaf, axes),)
    walk.run(graph, parts)
    return Roles(
        frozenset(walk.consumed), frozenset(walk.produced), walk.readers, walk.makers, walk.order,
        frozenset(walk.stepped), frozenset(x for x in walk.numbered if x[0] in walk.makers),
    )  # fmt: skip


class _Walk:
    def __init__(self, graph: Graph):
        self.consumed, self.produced = set(), set()
        self.stepped, self.numbered = set(), set()
        self.readers, self.makers, self.order = {}, {}, {}
        self.constants: set[Variable] = set()  # Depend on no argument.
        self.zeros = {v for v, value in graph.constants.items() if _is_zero(value)}
        self.fixed: set[Variable] = set()  # Depend on no argument but parameters.
        self.count, self.loops = 0, 0  # Equations seen, and loops around the one that is looked at.

    def run(self, graph: Graph, parts: dict[Variable, Parts]) -> None:
        self.constants.update(graph.constants)
        self.fixed.update(graph.constants, parts)
        for equation in graph.equations:
            self.count += 1
            for leaf in self.leaves(equation.inputs, parts):
                self.order.setdefault(leaf, self.count)
            self.derive(graph, equation)
            if self.constants.issuperset(equation.outputs):
                continue
            if equation.subgraphs:
                self.enter(equation, parts)
            elif (own := self.followed(graph, equation, parts)) is not None:
                parts.update(dict.fromkeys(equation.outputs, own))
            elif is_contraction(equation):
                self.contract(graph, equation, parts)
            else:
                self.use(equation.inputs, parts)
        self.use(graph.outputs, parts)

    def derive(self, graph, equation):
        """What results depend on, from what operands do."""
        for known in (self.fixed, self.constants):
            if known.issuperset(equation.inputs):
                known.update(equation.outputs)
        if is_structural(graph, equation) and self.zeros.issuperset(equation.inputs):
            self.zeros.update(equation.outputs)

    def leaves(self, variables, parts):
        """The leaves behind some variables."""
        return (leaf for v in variables for leaf, _ in parts.get(v, ()))

    def use(self, variables, parts):
        """Every axis is used as it is."""
        for v in variables:
            for part in parts.get(v, ()):
                self.mark(self.produced, part, range(len(part[1])))

    def mark(self, role, part, dims):
        leaf, axes = part
        role.update((leaf, axis) for d in dims for axis in axes[d])

    def followed(self, graph, equation, parts) -> Parts | None:
        """What the output is linear in, None where it is no leaf moved, summed or multiplied."""
        owned = [k for k, v in enumerate(equation.inputs) if v in parts]
        linear = PRIMITIVES.of(equation).linear
        if linear.joins is not None and owned:
            return self.joined(equation, parts, linear.joins)
        if is_structural(graph, equation) and owned == [0]:
            moved = partial(moved_axes, graph, equation)
            return tuple((leaf, moved(axes)) for leaf, axes in parts[equation.inputs[0]])
        scaled = [k for k in owned if k in linear.scales]
        if not scaled or not self.fixed.issuperset(equation.inputs[: linear.places]):
            return None
        if linear.places and self.loops:
            self.number(graph, equation, parts)
        # Of several leaves that are multiplied, scaling one is enough: that with the most axes.
        own = max(scaled, key=lambda k: sum(map(bool, parts[equation.inputs[k]][0][1])))
        self.use((v for k, v in enumerate(equation.inputs) if k != own), parts)
        return parts[equation.inputs[own]]

    def number(self, graph, equation, parts):
        """Axes of which a loop reads one position at a time, at a place that is not fixed."""
        if not self.constants.issuperset(equation.inputs[1:]):
            size = graph.shape(equation.outputs[0])
            for leaf, axes in parts[equation.inputs[0]]:
                cut = [x for x, n in zip(axes, size, strict=True) if n == 1 and len(x) == 1]
                self.numbered.update((leaf, *x) for x in cut)

    def joined(self, equation, parts, first) -> Parts | None:
        """Several leaves as one array: along each axis, only where every one of them has nodes."""
        choosing, joined = equation.inputs[:first], equation.inputs[first:]
        known = all(v in parts or v in self.zeros for v in joined)
        if not known or not self.constants.issuperset(choosing):
            return None
        found = tuple(part for v in joined for part in parts.get(v, ()))
        ranks = {len(axes) for _, axes in found}
        if len(ranks) != 1:
            return None
        shared = [all(axes[d] for _, axes in found) for d in range(*ranks)]
        for part in found:
            self.mark(self.produced, part, [d for d, every in enumerate(shared) if not every])
        return tuple(
            (
                leaf,
                tuple(x if every else frozenset() for x, every in zip(axes, shared, strict=True)),
            )
            for leaf, axes in found
        )

    def contract(self, graph, equation, parts):
        for leaf in self.leaves(equation.inputs, parts):
            self.makers.setdefault(leaf, (self.count, equation.name))
        if all(v in parts for v in equation.inputs):
            self.use(equation.inputs, parts)
            return
        for k, (v, dims) in enumerate(zip(equation.inputs, contracted(equation), strict=True)):
            if v in parts:
                shape = graph.shape(v)
                scaled = all(axes[d] or shape[d] == 1 for _, axes in parts[v] for d in dims)
                if scaled:
                    self.readers[equation.outputs[0]] = k
                for part in parts[v]:
                    rest = [d for d in range(len(part[1])) if d not in dims]
                    self.mark(self.consumed if scaled else self.produced, part, dims)
                    self.mark(self.produced, part, rest)

    def enter(self, equation, parts):
        """Follow the leaves into sub-graphs; a carried leaf is not followed."""
        carried, loops = _carried(equation), self.loops
        self.loops += equation.name in ("scan", "while")
        for body, operands, skipped in _operands(equation):
            inner: dict[Variable, Parts] = {}
            for v, name in zip(operands, body.inputs, strict=False):
                if v in carried:
                    continue
                if v in self.fixed:
                    self.fixed.add(name)
                if v in parts:
                    cut = slice(1, None) if v in skipped else slice(None)
                    inner[name] = tuple((leaf, axes[cut]) for leaf, axes in parts[v])
            self.run(body, inner)
            rows = [part for v in skipped for part in parts.get(v, ())]
            if any(leaf in self.makers for leaf, _ in rows):  # Else it steps through data.
                self.stepped.update((leaf, *axes[0]) for leaf, axes in rows if len(axes[0]) == 1)
        self.loops = loops
        self.use(carried, parts)


def _is_zero(value):
    numbers = entries(value)
    return numbers is not None and numbers.dtype.kind in "biufc" and not numbers.any()


def _carried(equation: Equation) -> Sequence[Variable]:
    """What a loop starts with, and its body changes."""
    if equation.name == "while":
        return parted(equation, equation.inputs)[2]
    return dealt(equation, equation.inputs)[1] if equation.name == "scan" else ()


def _operands(equation: Equation) -> Iterator[tuple[Graph, tuple[Variable, ...], frozenset]]:
    """(body, its operands, operands that lose their first axis)."""
    if equation.name == "scan":
        rows = dealt(equation, equation.inputs)[2]
        yield equation.subgraphs[0], equation.inputs, frozenset(rows)
    elif equation.name == "while":
        *fixed, start = parted(equation, equation.inputs)
        for body, own in zip(equation.subgraphs, fixed, strict=True):
            yield body, (*own, *start), frozenset()
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
