# SPDX-License-Identifier: Apache-2.0
"""Where the entries of an axis reach the output as one number each.

Behind the last convolution of most nets every channel is averaged before the head, so that all
outputs see the channel's positions through the same number. Derived in docs/mathematics/graph.md.
"""

from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plprune.graph.following.layouts import FOLLOWED, OWN, Factor, uniform_layout
from plprune.graph.following.walk import UNEQUAL, Value, Walk
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Graph, Variable, bind


class Bottleneck(NamedTuple):
    """All that the output depends on in `start` is `end`, one number per entry of an axis."""

    start: Variable
    end: Variable
    equations: tuple[int, ...]  # From start to end, in order of evaluation.


def bottleneck(graph: Graph, start: Variable, axis: int) -> Bottleneck | None:
    """The first real array behind `start` that holds one number for each entry of its `axis`.

    Entry k of that array depends on entry k of the axis alone, and every way from `start` to the
    outputs passes through it. None where there is no such array, or none is seen.
    """
    size = graph.shape(start)[axis]
    known = _followed(graph, start, axis)
    for end, value in known.items():
        # Constants may differ from entry to entry, as long as no two entries meet.
        apart = value.fault is None or value.fault.kind == UNEQUAL
        if not (apart and value.is_followed) or end == start or prod(graph.shape(end)) != size:
            continue
        is_real = jnp.issubdtype(graph.avals[end].dtype, jnp.floating)
        if is_real and set(_reached(graph, start, end)).isdisjoint(graph.outputs):
            return Bottleneck(start, end, _between(graph, start, end))
    return None


def shared_derivative(graph: Graph, narrow: Bottleneck, operands: dict[int, list[Any]]) -> Any:
    """The derivative of `narrow.end` in `narrow.start`, of the shape of the latter.

    Each entry of `start` moves one entry of `end` only, so that one reverse pass gives them all.

    Args:
      graph: From `trace`.
      narrow: From `bottleneck`.
      operands: Inputs of each of `narrow.equations`.
    """

    def onward(value):
        memory = {narrow.start: value}
        for index in narrow.equations:
            equation = graph.equations[index]
            known = zip(equation.inputs, operands[index], strict=True)
            outputs = bind(equation, [memory.get(v, own) for v, own in known])
            memory.update(zip(equation.outputs, outputs, strict=True))
        return memory[narrow.end]

    first = graph.equations[narrow.equations[0]]
    value = operands[narrow.equations[0]][first.inputs.index(narrow.start)]
    out, pull = jax.vjp(onward, value)
    return pull(jnp.ones_like(out))[0]


def _followed(graph, start, axis) -> dict[Variable, Value]:
    """What becomes of the axis in every variable that depends on `start`."""
    layout = list(uniform_layout(graph.shape(start), OWN))
    layout[axis] = (Factor(graph.shape(start)[axis], FOLLOWED),)
    walk = Walk(graph, {}, PRIMITIVES)
    known = {start: Value(tuple(layout), walk.named("start"))}
    for equation in graph.equations:
        if known.keys().isdisjoint(equation.inputs):
            continue
        own = [known[v] if v in known else walk.value(v) for v in equation.inputs]
        known.update(zip(equation.outputs, walk.after(equation, own), strict=True))
    return known


def _reached(graph, start, without=None):
    """Variables that depend on `start` otherwise than through `without`, and `start`."""
    reached = {start}
    for equation in graph.equations:
        if not reached.isdisjoint(equation.inputs):
            reached.update(v for v in equation.outputs if v != without)
    return reached


def _between(graph, start, end):
    """Equations on the ways from `start` to `end`."""
    after, before, kept = _reached(graph, start), {end}, []
    for index in range(len(graph.equations) - 1, -1, -1):
        equation = graph.equations[index]
        if not before.isdisjoint(equation.outputs) and not after.isdisjoint(equation.inputs):
            kept.append(index)
            before.update(after.intersection(equation.inputs))
    return tuple(reversed(kept))
