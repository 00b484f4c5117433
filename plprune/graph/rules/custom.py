# SPDX-License-Identifier: Apache-2.0
"""Functions with a derivative rule of their own, such as relu.

    b:f32[3,4] = custom_jvp_call[call_jaxpr={ lambda ; x. let y = max x 0.0 in (y,) }] a

* label: the body is labelled as if it stood here.
* fill: likewise; b is zero where a is.
* resize: the body at the new sizes, with relu's rule, which treats every entry alike.
* follow: the body, and the traced rule: what comes back to a row must come from that row.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from plprune.graph.entries import ANYTHING, Primitive
from plprune.graph.following.layouts import FOLLOWED, SAME, length
from plprune.graph.following.walk import LOST, Value, Walk, expressions
from plprune.graph.rules.scalars import SCALARS
from plprune.graph.shrinking.fills import Fills
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing
from plprune.graph.tracing import Equation, Graph, bind, evaluate, trace


def enter_call(known: Labels | Fills, equation: Equation) -> None:
    """The body sees what is known of the operands, and the outputs are the body's."""
    (body,) = equation.subgraphs
    known.enter(body, [known[v] for v in equation.inputs])
    for output, inner in zip(equation.outputs, body.outputs, strict=True):
        known[output] = known[inner]


def resize_call(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """The body at the new sizes.

    The derivative rule is kept where it treats every entry alike, as those of activation functions
    do (relu'(0) = 0 is one); any other function is differentiated through its body.
    """
    graph, (inner,) = resizing.labels.graph, equation.subgraphs

    def body(*arguments):
        return tuple(resizing.evaluate(inner, arguments))

    full = {graph.shape(v) for v in (*equation.inputs, *equation.outputs)} - {()}
    new = {jnp.shape(x) for x in values} - {()}
    if len(full) == len(new) == 1:
        rule = _traced_rule(graph, equation)
        if rule is not None and _is_elementwise(rule, *full):
            body = _WITH_RULE[equation.name](body, rule, *new)
    return list(body(*values))


def _traced_rule(graph, equation):
    """(primals, tangents) -> tangents, or (primals, cotangents) -> cotangents."""
    primals, outputs = _like(graph, equation.inputs), _like(graph, equation.outputs)
    if not all(jnp.issubdtype(p.dtype, jnp.inexact) for p in primals):
        return None
    given = primals if equation.name == "custom_jvp_call" else outputs
    return trace(_derivative(equation, range(len(primals))), primals, given)


def _derivative(equation, moved):
    """The rule as a function, with regard to the operands at some places."""

    def rule(primals, given):
        def call(*some):
            at = dict(zip(moved, some, strict=True))
            return tuple(bind(equation, [at.get(k, p) for k, p in enumerate(primals)]))

        known = tuple(primals[k] for k in moved)
        if equation.name == "custom_jvp_call":
            return jax.jvp(call, known, tuple(given))[1]
        return jax.vjp(call, *known)[1](tuple(given))

    return rule


def _like(graph, variables):
    avals = (graph.avals[v] for v in variables)
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]


def _is_elementwise(rule: Graph, shape: tuple[int, ...]) -> bool:
    """Whether every equation works entry by entry on arrays of one shape and scalars."""
    allowed = (*SCALARS, "broadcast_in_dim", *_WITH_RULE)
    for equation in rule.equations:
        variables = (*equation.inputs, *equation.outputs)
        if equation.name not in allowed or any(rule.shape(v) not in ((), shape) for v in variables):
            return False
        if any(v in rule.constants and rule.shape(v) for v in equation.inputs):
            return False
        if not all(_is_elementwise(body, shape) for body in equation.subgraphs):
            return False
    return True


def _at_shape(shape):
    def apply(equation, values):
        if equation.name == "broadcast_in_dim":
            return [jnp.broadcast_to(values[0], shape)]
        if equation.name in _WITH_RULE:
            return evaluate(equation.subgraphs[0], values, apply)
        return bind(equation, values)

    return apply


def _with_jvp(body, rule, shape):
    function = jax.custom_jvp(body)

    @function.defjvp
    def jvp(primals, tangents):
        out = evaluate(rule, [*primals, *tangents], _at_shape(shape))
        return function(*primals), tuple(out)

    return function


def _with_vjp(body, rule, shape):
    function = jax.custom_vjp(body)

    def backward(primals, cotangents):
        return tuple(evaluate(rule, [*primals, *cotangents], _at_shape(shape)))

    function.defvjp(lambda *primals: (body(*primals), primals), backward)
    return function


_WITH_RULE = {"custom_jvp_call": _with_jvp, "custom_vjp_call": _with_vjp}


def follow_call(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """The function itself, if its derivative keeps entries apart as well."""
    (body,) = equation.subgraphs
    out = walk.run(body, values)
    if walk.in_rule or _is_relu(equation):
        return out
    try:
        found = _derivatives_apart(walk, equation, values, out)
    except Exception:  # A rule that does not work is the user's to see, where it is used.
        found = None
    fault = None
    if found is None:
        fault = walk.fault(LOST, equation, "has a derivative that may mix entries along")
    return [
        v._replace(
            key=walk.named("custom", v.key, expressions(found or [])), fault=v.fault or fault
        )
        for v in out
    ]


def _derivatives_apart(walk, equation, values, out):
    """What the traced rule gives: tangents of rows, or what comes back to rows; None if mixed."""
    primals, outputs = _like(walk.graph, equation.inputs), _like(walk.graph, equation.outputs)
    moved = [k for k, p in enumerate(primals) if jnp.issubdtype(p.dtype, jnp.inexact)]
    own = [values[k] for k in moved]
    if equation.name == "custom_jvp_call":
        given, shapes, like = zip(moved, own, strict=True), [primals[k] for k in moved], out
    else:
        given, shapes, like = enumerate(out), outputs, own
    graph = trace(_derivative(equation, moved), primals, shapes)
    inner = Walk(graph, walk.names, walk.primitives)
    inner.depth, inner.in_rule = walk.depth, True
    named = [v._replace(key=walk.named(equation.name, k)) for k, v in given]
    found = inner.run(graph, [*values, *named])
    pairs = zip(found, like, strict=True)
    return found if all(v.fault is None and _follows(v, as_) for v, as_ in pairs) else None


def _follows(value, like):
    """Whether a derivative runs along the followed axis where the array does, or is constant."""
    if not value.is_followed:
        return not like.is_followed or all(
            FOLLOWED not in (f.kind for f in axis) or all(f.kind == SAME for f in own)
            for axis, own in zip(like.layout, value.layout, strict=True)
        )
    return [_place(a) for a in value.layout] == [_place(a) for a in like.layout]


def _place(axis):
    """Entries below the followed factor of an axis; None if there is none."""
    for k, factor in enumerate(axis):
        if factor.kind == FOLLOWED:
            return length(axis[k + 1 :])
    return None


def _is_relu(equation):
    """JAX's own, by far the most common; tracing its rule would cost more than all the rest."""
    (body,) = equation.subgraphs
    call = getattr(equation.params.get("call_jaxpr"), "jaxpr", None)
    made = str(getattr(getattr(call, "debug_info", None), "func_src_info", ""))
    names = [e.name for e in body.equations]
    return names == ["max"] and made.startswith("relu at ") and "jax/_src/nn/" in made


_CALL = Primitive(enter_call, enter_call, resize_call, follow_call, ANYTHING)
ENTRIES = {"custom_jvp_call": _CALL, "custom_vjp_call": _CALL}
