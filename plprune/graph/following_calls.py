# SPDX-License-Identifier: Apache-2.0
"""Loops, branches and functions with derivatives of their own, for `plprune.graph.following`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from plprune.graph import following_products, following_rules
from plprune.graph.combining import joined
from plprune.graph.following import LOST, UNEQUAL, Value, Walk
from plprune.graph.layouts import FOLLOWED, OWN, SAME, Factor, length, uniform_layout
from plprune.graph.tracing import Equation, Graph, bind, scan_counts, trace


def scan(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """The body at a state of the carried arrays that it does not change any more."""
    consts, carries = scan_counts(equation)
    fixed, start, rows = (
        values[:consts],
        values[consts : consts + carries],
        values[consts + carries :],
    )
    (body,) = equation.subgraphs
    steps = equation.params["length"]
    if steps == 1:
        out = walk.run(body, [*fixed, *start, *(v._replace(layout=v.layout[1:]) for v in rows)])
        ys = [v._replace(layout=((), *v.layout)) for v in out[carries:]]
        return [*out[:carries], *ys]
    if any(_leads(v) for v in rows):
        return _mapped(walk, equation, fixed, start, rows)
    inner = [_row(walk, v) for v in rows]
    carry, out = _settled(walk, equation, body, fixed, start, inner)
    how = ("scan", steps, equation.params["reverse"], _starts(start, carry), _keys(out[:carries]))
    ends = [v._replace(key=walk.named(*how, k)) for k, v in enumerate(carry)]
    lead = uniform_layout((steps,), OWN)
    ys = [
        v._replace(layout=lead + v.layout, key=walk.named(*how, "stacked", _keys([v])))
        for v in out[carries:]
    ]
    return [*ends, *ys]


def while_(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """As a scan, as long as the number of steps does not depend on what is followed.

    A loop under vmap has a condition for each entry, and changes only those that go on.
    """
    count = equation.params["cond_nconsts"]
    consts = count + equation.params["body_nconsts"]
    test, body = equation.subgraphs
    start = carry = values[consts:]
    while True:
        carry, out = _settled(walk, equation, body, values[count:consts], carry, [])
        walk.depth += 1
        (more,) = walk.run(test, [*values[:count], *_carried(walk, carry)])
        walk.depth -= 1
        before, carry = carry, [_where(walk, equation, more, v) for v in carry]
        if [v.layout for v in before] == [v.layout for v in carry]:
            break
    fault = more.fault and walk.fault(LOST, equation, "runs until something holds of the rows of")
    how = ("while", _starts(start, carry), _keys(out), _keys([more]))
    return [Value(v.layout, walk.named(*how, k), fault or v.fault) for k, v in enumerate(carry)]


def _where(walk, equation, condition, value):
    """An array that changes where a condition of its first axes holds."""
    missing = len(value.layout) - len(condition.layout)
    whole = condition._replace(layout=condition.layout + ((),) * missing, fault=None)
    return joined(walk, equation, value, whole)


def cond(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """What holds of all branches."""
    which, *operands = values
    outs = [walk.run(body, operands) for body in equation.subgraphs]
    results = []
    for options in zip(*outs, strict=True):
        value = options[0]
        for other in options[1:]:
            value = joined(walk, equation, value, other)
        patterns = tuple((v.key, _pattern(v.layout, value.layout)) for v in options)
        fault = value.fault
        if which.fault:
            fault = walk.fault(LOST, equation, "branches on rows of")
        results.append(value._replace(key=walk.named("cond", which.key, patterns), fault=fault))
    return results


def custom_jvp(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """The function itself, if its derivative keeps entries apart as well."""
    (body,) = equation.subgraphs
    out = walk.run(body, values)
    if walk.in_rule or _is_relu(equation):
        return out
    moved = [k for k, v in enumerate(equation.inputs) if _is_inexact(walk, v)]

    def rule(primals, tangents):
        def call(*some):
            return tuple(bind(equation, _filled(primals, moved, some)))

        return jax.jvp(call, tuple(primals[k] for k in moved), tuple(tangents))[1]

    tangents = [values[k]._replace(key=walk.named("tangent", k)) for k in moved]
    shapes = [_like(walk, equation.inputs[k]) for k in moved]
    return _with_rule(walk, equation, out, rule, (values, tangents), shapes, out)


def custom_vjp(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """The function itself, if what comes back to an array of rows comes back row by row."""
    (body,) = equation.subgraphs
    out = walk.run(body, values)
    if walk.in_rule:
        return out
    moved = [k for k, v in enumerate(equation.inputs) if _is_inexact(walk, v)]

    def rule(primals, cotangents):
        def call(*some):
            return tuple(bind(equation, _filled(primals, moved, some)))

        return jax.vjp(call, *(primals[k] for k in moved))[1](tuple(cotangents))

    cotangents = [v._replace(key=walk.named("cotangent", k)) for k, v in enumerate(out)]
    shapes = [_like(walk, v) for v in equation.outputs]
    arrived = [values[k] for k in moved]
    return _with_rule(walk, equation, out, rule, (values, cotangents), shapes, arrived)


def _with_rule(walk, equation, out, rule, arguments, shapes, like):
    """Outputs, at fault if the rule's results do not run as `like`."""
    fault, found = None, []
    try:
        graph = trace(rule, [_like(walk, v) for v in equation.inputs], shapes)
        inner = Walk(graph, walk.names, walk.rules)
        inner.depth, inner.in_rule = walk.depth, True
        found = inner.run(graph, [*arguments[0], *arguments[1]])
        apart = [v.fault is None and _follows(v, own) for v, own in zip(found, like, strict=True)]
    except Exception:  # A rule that does not work is the user's to see, where it is used.
        apart = [False]
    if not all(apart):
        fault = walk.fault(LOST, equation, "has a derivative that may mix entries along")
    return [
        v._replace(key=walk.named("custom", v.key, _keys(found)), fault=v.fault or fault)
        for v in out
    ]


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


def _filled(primals, moved, some):
    return [dict(zip(moved, some, strict=True)).get(k, p) for k, p in enumerate(primals)]


def _is_relu(equation):
    """JAX's own, by far the most common; tracing its rule would cost more than all the rest."""
    (body,) = equation.subgraphs
    call = getattr(equation.params.get("call_jaxpr"), "jaxpr", None)
    made = str(getattr(getattr(call, "debug_info", None), "func_src_info", ""))
    names = [e.name for e in body.equations]
    return names == ["max"] and made.startswith("relu at ") and "jax/_src/nn/" in made


def _is_inexact(walk, variable):
    return jnp.issubdtype(getattr(walk.graph.avals[variable], "dtype", jnp.int32), jnp.inexact)


def _like(walk, variable):
    aval = walk.graph.avals[variable]
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _leads(value):
    return any(f.kind == FOLLOWED for f in value.layout[0])


def _mapped(walk, equation, fixed, start, rows):
    """A loop over the followed axis itself: a map where nothing is carried."""
    (body,) = equation.subgraphs
    plain = all({f.kind for f in v.layout[0]} <= {FOLLOWED, SAME} for v in rows)
    out = walk.run(body, [*fixed, *start, *(v._replace(layout=v.layout[1:]) for v in rows)])
    fault = None
    if start:
        fault = walk.fault(LOST, equation, "carries something along")
    elif not plain or any(len(v.layout[0]) != 1 for v in rows):
        fault = walk.fault(UNEQUAL, equation, "meets an array that is not constant along")
    elif any(v.is_followed for v in fixed):
        fault = walk.fault(LOST, equation, "sees all rows at every step along")
    lead = ((Factor(equation.params["length"], FOLLOWED if fault is None else OWN),),)
    ys = [v._replace(layout=lead + v.layout, fault=v.fault or fault) for v in out[len(start) :]]
    ends = [v._replace(fault=v.fault or fault) for v in out[: len(start)]]
    return [*ends, *ys]


def _row(walk, value):
    """What a scan sees of an array at one step."""
    lead, *rest = value.layout
    layout = tuple(rest)
    if all(f.kind == SAME for f in lead):
        return value._replace(layout=layout)
    return value._replace(layout=layout, key=walk.named("row", walk.depth, value.key, lead))


def _settled(walk, equation, body, fixed, start, rows):
    """Carried arrays, as general as the body leaves them, and its outputs there."""
    carry = list(start)
    walk.depth += 1
    while True:
        out = walk.run(body, [*fixed, *_carried(walk, carry), *rows])
        new = [joined(walk, equation, a, b) for a, b in zip(carry, out, strict=False)]
        same = [
            (a.layout, a.fault is None) == (b.layout, b.fault is None)
            for a, b in zip(carry, new, strict=True)
        ]
        carry = new
        if all(same):
            walk.depth -= 1
            return carry, out


def _carried(walk, carry):
    """Under the names by which a body knows them."""
    return [v._replace(key=walk.named("carried", walk.depth, k)) for k, v in enumerate(carry)]


def _starts(start, carry):
    return tuple((v.key, _pattern(v.layout, w.layout)) for v, w in zip(start, carry, strict=True))


def _pattern(layout, general):
    """Which axes of an array vary, of those that vary in general."""

    def own(axis):
        return tuple(f.size for f in axis if f.kind == OWN)

    return tuple(own(a) for a, b in zip(layout, general, strict=True) if own(b))


def _keys(values: Sequence[Value]) -> Any:
    return tuple((v.key, _pattern(v.layout, v.layout)) for v in values)


RULES: dict[str, Callable] = {
    **following_rules.RULES,
    **following_products.RULES,
    "scan": scan,
    "while": while_,
    "cond": cond,
    "custom_jvp_call": custom_jvp,
    "custom_vjp_call": custom_vjp,
}


def walk_of(graph: Graph, names: dict | None = None) -> Walk:
    """A walk through a graph with the rules of all primitives."""
    return Walk(graph, {} if names is None else names, RULES)
