# SPDX-License-Identifier: Apache-2.0
"""Custom derivative rules of elementwise functions, at another size."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from plprune.graph.label_rules import ELEMENTWISE
from plprune.graph.tracing import Equation, Graph, bind, evaluate, trace

CALLS = ("custom_jvp_call", "custom_vjp_call")


def resized_call(
    graph: Graph, equation: Equation, body: Callable[..., tuple], values: Sequence[Any]
) -> list[Any]:
    """Outputs of a function with a custom derivative at arrays of another size.

    The rule is kept where it treats every entry alike, as those of activation functions do
    (relu'(0) = 0 is one); any other function is differentiated through its body.

    Args:
      graph: That the equation is in.
      equation: custom_jvp_call or custom_vjp_call.
      body: The function at the new size.
      values: Its arguments.
    """
    full = {graph.shape(v) for v in (*equation.inputs, *equation.outputs)} - {()}
    new = {jnp.shape(x) for x in values} - {()}
    if len(full) == len(new) == 1:
        rule = _traced_rule(graph, equation)
        if rule is not None and _is_elementwise(rule, *full):
            body = _WITH_RULE[equation.name](body, rule, *new)
    return list(body(*values))


def _traced_rule(graph, equation):
    """(primals, tangents) -> tangents, or (primals, cotangents) -> cotangents."""
    primals = [_like(graph, v) for v in equation.inputs]
    if not all(jnp.issubdtype(p.dtype, jnp.inexact) for p in primals):
        return None

    def call(*arguments):
        return tuple(bind(equation, arguments))

    if equation.name == "custom_jvp_call":
        return trace(lambda p, t: jax.jvp(call, tuple(p), tuple(t))[1], primals, primals)
    outputs = tuple(_like(graph, v) for v in equation.outputs)
    return trace(lambda p, t: jax.vjp(call, *p)[1](t), primals, outputs)


def _like(graph, variable):
    aval = graph.avals[variable]
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _is_elementwise(rule: Graph, shape: tuple[int, ...]) -> bool:
    """Whether every equation works entry by entry on arrays of one shape and scalars."""
    allowed = (*ELEMENTWISE, "broadcast_in_dim", *CALLS)
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
        if equation.name in CALLS:
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
