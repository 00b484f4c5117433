# SPDX-License-Identifier: Apache-2.0
"""One axis followed through a graph: where it runs, whether its entries meet, and what is computed.

Expressions are numbered without the axis, so that graphs of different batch sizes can be compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plprune.compilation import is_concrete
from plprune.graph.entries import Primitives
from plprune.graph.following.layouts import FOLLOWED, OWN, SAME, Factor, Layout, uniform_layout
from plprune.graph.tracing import Equation, Graph, Variable

MIXED, LOST, UNEQUAL = "mixed", "lost", "unequal"
_LOOKED_AT = 2**16  # Entries of a constant whose values are compared.
# What they return is not decided by their operands.
_IMPURE = frozenset({"pure_callback", "io_callback", "python_callback", "ffi_call", "rng_uniform"})


class Fault(NamedTuple):
    """What keeps an array from being one and the same function of each entry."""

    kind: str  # MIXED: entries meet; LOST: not followed; UNEQUAL: entries meet unequal constants.
    reason: str


class Value(NamedTuple):
    """What is known of an array."""

    layout: Layout
    key: int  # Equal keys are equal expressions of one entry, from `Walk.named`.
    fault: Fault | None = None

    @property
    def is_followed(self) -> bool:
        """Whether the followed axis is one of its own."""
        return any(f.kind == FOLLOWED for axis in self.layout for f in axis)


class Walk:
    """Values of a graph's variables, and the expressions that they were seen to be.

    Args:
      graph: From `trace`.
      names: Numbers of expressions; walks that share them can compare their keys.
      primitives: The table of rules.
    """

    def __init__(self, graph: Graph, names: dict, primitives: Primitives):
        self.graph, self.names, self.primitives = graph, names, primitives
        self.values: dict[Variable, Value] = {}
        self.depth = 0  # Of loops, whose carried arrays are named by it.
        self.in_rule = False  # Within a derivative rule.

    def named(self, *expression: Any) -> int:
        """The number of an expression."""
        return self.names.setdefault(expression, len(self.names))

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a variable."""
        return self.graph.shape(variable)

    def run(self, graph: Graph, inputs: Sequence[Value]) -> list[Value]:
        """Values of the outputs of a graph, or of a sub-graph, from those of its inputs."""
        self.values.update(zip(graph.inputs, inputs, strict=True))
        for equation in graph.equations:
            found = self.after(equation, [self.value(v) for v in equation.inputs])
            self.values.update(zip(equation.outputs, found, strict=True))
        return [self.value(v) for v in graph.outputs]

    def value(self, variable: Variable) -> Value:
        """What is known of a variable; constants are looked at."""
        if variable not in self.values:
            self.values[variable] = self._constant(variable)
        return self.values[variable]

    def after(self, equation: Equation, values: list[Value]) -> list[Value]:
        """Values of an equation's outputs."""
        rule = self.primitives.of(equation).follow
        if rule is not None:
            return rule(self, equation, values)
        return self.opaque(equation, values)

    def opaque(self, equation: Equation, values: Sequence[Value]) -> list[Value]:
        """Outputs of an equation that is not followed: nothing is known of their axes."""
        fault = first_fault(values)
        unknown = equation.name in _IMPURE or any(v.is_followed for v in values)
        if fault is None and unknown:
            fault = self.fault(LOST, equation, "is not known to keep apart")
        operands = tuple((v.key, v.layout) for v in values)
        whole = ("whole", equation.name, frozen(equation.params), operands)
        return [
            Value(uniform_layout(self.shape(v), OWN), self.named(*whole, k, self.shape(v)), fault)
            for k, v in enumerate(equation.outputs)
        ]

    def fault(self, kind: str, equation: Equation, how: str) -> Fault:
        """A fault at an equation, by its name and source line."""
        where = f" at {equation.source}" if equation.source else ""
        return Fault(kind, f"{equation.name} {how} the batch axis{where}")

    def _constant(self, variable):
        shape = self.shape(variable)
        content = self.graph.constants.get(variable)
        if variable not in self.graph.constants:
            return Value(uniform_layout(shape, OWN), self.named("variable", variable))
        array = _looked_at(content, self.graph.avals[variable])
        if array is None:
            return Value(uniform_layout(shape, OWN), self.named("identity", id(content)))
        layout = []
        for d, size in enumerate(shape):
            first = array.take([0], d) if size else array
            if bytes(np.broadcast_to(first, array.shape).tobytes()) == array.tobytes():
                array = first
                layout.append(() if size == 1 else (Factor(size, SAME),))
            else:
                layout.append((Factor(size, OWN),))
        content = tuple(n for n in array.shape if n != 1), array.dtype.name, array.tobytes()
        return Value(tuple(layout), self.named("constant", content))


def first_fault(values: Sequence[Value]) -> Fault | None:
    """The worst fault among values, of equal ones the first."""
    return worst([v.fault for v in values], MIXED, LOST, UNEQUAL)


def worst(faults: Iterable[Fault | None], *kinds: str) -> Fault | None:
    """The first fault of the first kind that there is."""
    return next((f for kind in kinds for f in faults if f is not None and f.kind == kind), None)


def _looked_at(content, aval):
    """A small constant, of the type it is used with; None if it is not looked at."""
    if not hasattr(aval, "shape") or (isinstance(content, jax.Array) and not is_concrete(content)):
        return None
    if prod(aval.shape) > _LOOKED_AT or jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        return None
    if isinstance(content, jax.Array) and not content.is_fully_addressable:
        return None
    return np.asarray(content, aval.dtype)


def frozen(params: Any) -> Any:
    """Parameters of an equation as something to compare: by value where they have one."""
    if isinstance(params, Mapping):
        return tuple((k, frozen(v)) for k, v in sorted(params.items()) if k not in _UNIMPORTANT)
    if isinstance(params, tuple | list):
        return tuple(map(frozen, params))
    if isinstance(params, np.ndarray | jax.Array):
        return ("identity", id(params))
    try:
        hash(params)
    except TypeError:
        return str(params)
    return params


_UNIMPORTANT = frozenset({"sharding", "out_sharding", "weak_type"})


def varying(layout: Layout, general: Layout) -> tuple[Any, ...]:
    """Which axes of an array vary, of those that vary in general."""

    def own(axis):
        return tuple(f.size for f in axis if f.kind == OWN)

    return tuple(own(a) for a, b in zip(layout, general, strict=True) if own(b))


def expressions(values: Sequence[Value]) -> Any:
    """Expressions of values, and the axes along which they vary."""
    return tuple((v.key, varying(v.layout, v.layout)) for v in values)
