# SPDX-License-Identifier: Apache-2.0
"""A JAX function as a flat list of equations over numbered arrays."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import jax
from jax.extend import core, source_info_util
from jax.extend.core import primitives

from plprune.graph.paths import leaf_paths

Variable = int  # Unique within one traced graph, its sub-graphs included.

# Calls that change neither values nor derivatives: their bodies are spliced in.
INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"})
# Calls with a body of their own: Python name of the parameter that holds it.
BODIES = {
    "scan": ("jaxpr",),
    "while": ("cond_jaxpr", "body_jaxpr"),
    "cond": ("branches",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
}


class Equation(NamedTuple):
    """One primitive applied to variables."""

    primitive: Any  # The jax primitive; `primitive.name` is its name.
    params: dict[str, Any]
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    subgraphs: tuple["Graph", ...]  # Bodies of scan, while, cond, custom_jvp_call, custom_vjp_call.
    source_info: tuple[Any, ...]  # Own, then those of the calls it was inlined from.

    @property
    def name(self) -> str:
        """Name of the primitive, as in `jax.make_jaxpr`."""
        return self.primitive.name

    @property
    def source(self) -> str:
        """File and line of the user's code that made this equation."""
        return source_info_util.summarize(self.made_at) or "unknown line"

    @property
    def made_at(self) -> Any:
        """Where in the user's code it was made, as jax knows it."""
        # Library functions that jit themselves are cached without the user's frames.
        known = filter(source_info_util.summarize, self.source_info)
        return next(known, self.source_info[0])


@dataclass(frozen=True, eq=False)
class Graph:
    """Equations in order of evaluation; every call instance has variables of its own.

    `inputs` are the flattened arguments, and `paths[k]` names the leaves of argument k, so the
    first `len(paths[0])` inputs are the leaves of the first argument. `avals` and
    `constants` are shared with the sub-graphs, whose `paths` are empty.
    """

    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    equations: tuple[Equation, ...]
    avals: dict[Variable, Any]  # Abstract values with `shape` and `dtype`.
    constants: dict[Variable, Any]
    paths: tuple[tuple[str, ...], ...] = ()
    out_tree: Any = None

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a variable; tokens and other shapeless values count as scalars."""
        return tuple(getattr(self.avals[variable], "shape", ()))


def trace(function: Callable, *args: Any) -> Graph:
    """The graph of ``function(*args)``; nothing is computed.

    jit, remat and closed calls are spliced in. scan, while, cond and functions with a custom
    derivative stay single equations with sub-graphs, so that evaluating them keeps their
    derivative rules (relu'(0) = 0 depends on it). Equations that no output needs are dropped, and
    with them what only prints.

    Args:
      function: Pure function of pytrees.
      *args: Arrays or `jax.ShapeDtypeStruct`s.
    """
    closed, out_shape = jax.make_jaxpr(function, return_shape=True)(*args)
    builder = _Builder()
    inputs = tuple(builder.new(v.aval) for v in closed.jaxpr.invars)
    equations, outputs = builder.flatten(closed, inputs)
    return Graph(
        inputs,
        outputs,
        tuple(_needed(equations, outputs)),
        builder.avals,
        builder.constants,
        tuple(leaf_paths(arg) for arg in args),
        jax.tree.structure(out_shape),
    )


class _Builder:
    """Numbers variables; jaxprs are cached objects, so their own variables repeat across calls."""

    def __init__(self):
        self.fresh, self.avals, self.constants = count(), {}, {}

    def new(self, aval) -> Variable:
        variable = next(self.fresh)
        self.avals[variable] = aval
        return variable

    def constant(self, aval, value) -> Variable:
        variable = self.new(aval)
        self.constants[variable] = value
        return variable

    def flatten(self, jaxpr, inputs, callers=()) -> tuple[list[Equation], tuple[Variable, ...]]:
        jaxpr, consts = _opened(jaxpr)
        names = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            names[var] = self.constant(var.aval, value)
        equations: list[Equation] = []

        def read(atom):
            if isinstance(atom, core.Literal):
                return self.constant(atom.aval, atom.val)
            return names[atom]

        for eqn in jaxpr.eqns:
            arguments = tuple(map(read, eqn.invars))
            source = (eqn.source_info, *callers)
            if eqn.primitive.name in INLINED:
                body, outputs = self.flatten(_inlined_body(eqn), arguments, source)
                equations += body
            else:
                outputs = tuple(self.new(v.aval) for v in eqn.outvars)
                equations += self.single(eqn, arguments, outputs, source)
            names.update(zip(eqn.outvars, outputs, strict=True))
        return equations, tuple(map(read, jaxpr.outvars))

    def single(self, eqn, arguments, outputs, source) -> list[Equation]:
        """The equation; a reshape that moves axes first is written as the two steps that it is."""
        moved, params = [], eqn.params
        if eqn.primitive is primitives.reshape_p and params.get("dimensions") is not None:
            order, (source_array,) = tuple(map(int, params["dimensions"])), arguments
            shape = self.avals[source_array].shape
            aval = self.avals[source_array].update(shape=tuple(shape[d] for d in order))
            arguments, params = (self.new(aval),), {**params, "dimensions": None}
            move = {"permutation": order}
            moved = [Equation(primitives.transpose_p, move, (source_array,), arguments, (), source)]
        bodies = tuple(self.subgraph(body, source) for body in _bodies(eqn))
        return [*moved, Equation(eqn.primitive, params, arguments, outputs, bodies, source)]

    def subgraph(self, jaxpr, callers) -> Graph:
        inputs = tuple(self.new(v.aval) for v in _opened(jaxpr)[0].invars)
        equations, outputs = self.flatten(jaxpr, inputs, callers)
        needed = tuple(_needed(equations, outputs))
        return Graph(inputs, outputs, needed, self.avals, self.constants)


def _opened(jaxpr):
    return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, core.ClosedJaxpr) else (jaxpr, ())


def _inlined_body(eqn):
    (body,) = (v for v in eqn.params.values() if isinstance(v, core.ClosedJaxpr | core.Jaxpr))
    return body


def _bodies(eqn) -> Iterator[Any]:
    for name in BODIES.get(eqn.primitive.name, ()):
        value = eqn.params[name]
        yield from value if isinstance(value, tuple) else (value,)


def scan_counts(equation: Equation) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many are carried; what is left is scanned.

    jax gives both as parameters, whose names and kind changed with jax 0.12. Shapes tell as much:
    what is scanned or stacked has one axis less in the body, everything else has the same.
    """
    (body,) = equation.subgraphs

    def whole(outer, inner):
        return sum(body.shape(x) == body.shape(y) for x, y in zip(outer, inner, strict=True))

    carried = whole(equation.outputs, body.outputs)
    return whole(equation.inputs, body.inputs) - carried, carried


def _needed(equations: list[Equation], outputs: Sequence[Variable]) -> list[Equation]:
    """Equations that some output depends on, in order."""
    live, kept = set(outputs), []
    for equation in reversed(equations):
        if not live.isdisjoint(equation.outputs):
            live.update(equation.inputs)
            kept.append(equation)
    return kept[::-1]


def all_equations(graph: Graph) -> Iterator[Equation]:
    """The equations of a graph, each before those of its bodies."""
    for equation in graph.equations:
        yield equation
        for body in equation.subgraphs:
            yield from all_equations(body)


def bind(equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Outputs of one equation, with its own derivative rules."""
    primitive = equation.primitive
    out = primitive.bind(*values, **primitive.get_bind_params(equation.params))
    return list(out) if primitive.multiple_results else [out]


def evaluate(
    graph: Graph,
    values: Sequence[Any],
    rule: Callable[[Equation, Sequence[Any]], list[Any]] = bind,
    read_constant: Callable[[Variable, Any], Any] = lambda _, value: value,
) -> list[Any]:
    """Flat outputs of a graph at flat inputs.

    Args:
      graph: From `trace`.
      values: One array per entry of `graph.inputs`.
      rule: ``rule(equation, values) -> outputs`` evaluates one equation; `bind` by default.
      read_constant: ``read_constant(variable, value) -> value`` may replace a constant.
    """
    memory = dict(zip(graph.inputs, values, strict=True))

    def read(variable):
        if variable not in memory:
            memory[variable] = read_constant(variable, graph.constants[variable])
        return memory[variable]

    for equation in graph.equations:
        outputs = rule(equation, [read(v) for v in equation.inputs])
        memory.update(zip(equation.outputs, outputs, strict=True))
    return [read(v) for v in graph.outputs]
