# SPDX-License-Identifier: Apache-2.0
"""Bodies that are run again and again: scan and while.

    c:f32[4] ys:f32[9,4] = scan[jaxpr={ lambda ; h x. let g = mul h x in (g, g) }] a xs:f32[9,4]

* label: the body is labelled once; h, g and c have the labels of a, and x those of a row of xs.
* fill: what is known of a must be known of g as well; it is weakened until it is.
* resize: the loop runs over the body at the new sizes.
* follow: likewise, the state is weakened until a step leaves it alone; a batch along the rows of xs
  is lost where anything is carried, and mapped where nothing is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.entries import ANYTHING, Primitive
from plprune.graph.following.combining import joined
from plprune.graph.following.layouts import FOLLOWED, OWN, SAME, Factor, uniform_layout
from plprune.graph.following.walk import LOST, UNEQUAL, Value, Walk, expressions, varying
from plprune.graph.shrinking.fills import Fills, meet
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing
from plprune.graph.tracing import Equation, scan_counts


def dealt(equation: Equation, items: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """Of what a scan is given: constants, what is carried, what is stepped through."""
    consts, carried = scan_counts(equation)
    return items[:consts], items[consts : consts + carried], items[consts + carried :]


def label_scan(labels: Labels, equation: Equation) -> None:
    """One walk over the body; what is carried keeps its labels from step to step."""
    (body,), (consts, start, rows) = equation.subgraphs, dealt(equation, equation.inputs)
    for v in rows:
        labels.pin(labels[v][0], equation, "{} steps along it")
    labels.enter(body, [*(labels[v] for v in (*consts, *start)), *(labels[v][1:] for v in rows)])
    for before, after in zip(dealt(equation, body.inputs)[1], body.outputs, strict=False):
        labels.unify_arrays(before, after, equation)
    for k, (output, inner) in enumerate(zip(equation.outputs, body.outputs, strict=True)):
        steps = [] if k < len(start) else [np.zeros(labels.shape(output)[0], np.int64)]
        labels[output] = [*steps, *labels[inner]]


def fill_scan(fills: Fills, equation: Equation) -> None:
    """Facts about what is carried must survive a step: repeat until they do."""
    (body,) = equation.subgraphs
    consts, carried, rows = dealt(equation, [fills[v] for v in equation.inputs])
    rows = [f._replace(axes=f.axes[1:]) for f in rows]
    carried = _survivors(fills, body, consts, carried, rows)
    for k, (output, inner) in enumerate(zip(equation.outputs, body.outputs, strict=True)):
        fill = fills[inner]
        fills[output] = fill if k < len(carried) else fill._replace(axes=({}, *fill.axes))


def _survivors(fills, body, consts, carried, rows):
    """What is known of carried arrays whatever the number of steps."""
    while True:
        fills.enter(body, [*consts, *carried, *rows])
        after = (fills[v] for v in body.outputs)
        surviving = [_tidy(meet(x, y)) for x, y in zip(carried, after, strict=False)]
        if surviving == [_tidy(x) for x in carried]:
            return carried
        carried = surviving


def _tidy(fill):
    """Without empty facts, so that equality means equality."""
    return fill._replace(axes=tuple({v: a for v, a in x.items() if a} for x in fill.axes))


def resize_scan(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """A loop whose body is evaluated at the new sizes."""
    (body,), (consts, start, rows) = equation.subgraphs, dealt(equation, values)

    def step(carry, stepped):
        out = resizing.evaluate(body, [*consts, *carry, *stepped])
        return tuple(out[: len(start)]), tuple(out[len(start) :])

    options = {name: equation.params[name] for name in ("length", "reverse", "unroll")}
    carry, stacked = jax.lax.scan(step, tuple(start), tuple(rows), **options)
    return [*carry, *stacked]


def follow_scan(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """The body at a state of the carried arrays that it does not change any more."""
    (body,), (fixed, start, rows) = equation.subgraphs, dealt(equation, values)
    carries = len(start)
    steps = equation.params["length"]
    if steps == 1:
        out = walk.run(body, [*fixed, *start, *(v._replace(layout=v.layout[1:]) for v in rows)])
        ys = [v._replace(layout=((), *v.layout)) for v in out[carries:]]
        return [*out[:carries], *ys]
    if any(_leads(v) for v in rows):
        return _mapped(walk, equation, fixed, start, rows)
    inner = [_row(walk, v) for v in rows]
    carry, out = _settled(walk, equation, body, fixed, start, inner)
    state = _starts(start, carry), expressions(out[:carries])
    how = ("scan", steps, equation.params["reverse"], *state)
    ends = [v._replace(key=walk.named(*how, k)) for k, v in enumerate(carry)]
    lead = uniform_layout((steps,), OWN)
    ys = [
        v._replace(layout=lead + v.layout, key=walk.named(*how, "stacked", expressions([v])))
        for v in out[carries:]
    ]
    return [*ends, *ys]


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
    return tuple((v.key, varying(v.layout, w.layout)) for v, w in zip(start, carry, strict=True))


def parted(equation: Equation, items: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """Of what a while loop is given: constants of the test and of the body, what is carried."""
    first = equation.params["cond_nconsts"]
    second = first + equation.params["body_nconsts"]
    return items[:first], items[first:second], items[second:]


def label_while(labels: Labels, equation: Equation) -> None:
    """One walk over the body and the test; what is carried keeps its labels."""
    test, body = equation.subgraphs
    asked, consts, start = parted(equation, [labels[v] for v in equation.inputs])
    labels.enter(body, [*consts, *start])
    for before, after in zip(body.inputs[len(consts) :], body.outputs, strict=True):
        labels.unify_arrays(before, after, equation)
    labels.enter(test, [*asked, *start])
    for output, axes in zip(equation.outputs, start, strict=True):
        labels[output] = axes


def fill_while(fills: Fills, equation: Equation) -> None:
    """Facts about what is carried must survive a step, and hold where the loop goes on."""
    test, body = equation.subgraphs
    asked, consts, start = parted(equation, [fills[v] for v in equation.inputs])
    carried = _survivors(fills, body, consts, start, [])
    fills.enter(test, [*asked, *carried])
    for output, fill in zip(equation.outputs, carried, strict=True):
        fills[output] = fill


def resize_while(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """A loop whose body and test are evaluated at the new sizes."""
    test, body = equation.subgraphs
    asked, consts, start = parted(equation, list(values))

    depth = len(resizing.labels.shape(test.outputs[0]))

    def holds(carry):
        return resizing.evaluate(test, [*asked, *carry])[0]

    def step(carry):
        after = tuple(resizing.evaluate(body, [*consts, *carry]))
        if not depth:
            return after
        going = holds(carry)  # Under vmap each entry has its own, and stays once it fails.
        tests = (jnp.expand_dims(going, range(depth, x.ndim)) for x in after)
        return tuple(map(jnp.where, tests, after, carry))

    return list(jax.lax.while_loop(lambda carry: holds(carry).any(), step, tuple(start)))


def follow_while(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """As a scan, as long as the number of steps does not depend on what is followed.

    A loop under vmap has a condition for each entry, and changes only those that go on.
    """
    test, body = equation.subgraphs
    asked, consts, start = parted(equation, values)
    carry = start
    while True:
        carry, out = _settled(walk, equation, body, consts, carry, [])
        walk.depth += 1
        (more,) = walk.run(test, [*asked, *_carried(walk, carry)])
        walk.depth -= 1
        before, carry = carry, [_where(walk, equation, more, v) for v in carry]
        if [v.layout for v in before] == [v.layout for v in carry]:
            break
    fault = more.fault and walk.fault(LOST, equation, "runs until something holds of the rows of")
    how = ("while", _starts(start, carry), expressions(out), expressions([more]))
    return [Value(v.layout, walk.named(*how, k), fault or v.fault) for k, v in enumerate(carry)]


def _where(walk, equation, condition, value):
    """An array that changes where a condition of its first axes holds."""
    missing = len(value.layout) - len(condition.layout)
    whole = condition._replace(layout=condition.layout + ((),) * missing, fault=None)
    return joined(walk, equation, value, whole)


ENTRIES = {
    "scan": Primitive(label_scan, fill_scan, resize_scan, follow_scan, ANYTHING),
    "while": Primitive(label_while, fill_while, resize_while, follow_while, ANYTHING),
}
