# SPDX-License-Identifier: Apache-2.0
"""Whether every row of a batch is treated by itself and alike, read off the graph.

A function that is evaluated one example at a time must give what it gives on the whole batch. Two
things are read: along the batch axis no entries meet, nor constants that differ from row to row,
and the graph of one example computes the same expression as that of the batch, so that the number
of examples does not enter.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plprune.graph.following.layouts import FOLLOWED, OWN, SAME, Factor, uniform_layout
from plprune.graph.following.walk import MIXED, Value, Walk, first_fault
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Graph, trace


class Verdict(NamedTuple):
    """What graphs prove, and the first reason to doubt it."""

    outcome: Literal["independent", "mixed", "unproven"]
    reason: str = ""


INDEPENDENT = Verdict("independent")


class Read(NamedTuple):
    """What the graph of a batch says."""

    graph: Graph
    verdict: Verdict  # Of what happens along the batch axis.
    outputs: list[Value]
    names: dict[Any, int]  # The expressions that are computed.
    size: int


def trace_single(function: Callable, params: Any, inputs: Any) -> Graph:
    """The graph of ``(params, example) -> output``, an example without the batch axis."""

    def alone(params, example):
        outputs = function(params, jax.tree.map(lambda a: a[None], example))
        return jax.tree.map(lambda a: a[0], outputs)

    def shape(array):
        return jax.ShapeDtypeStruct(jnp.shape(array)[1:], jnp.result_type(array))

    return trace(alone, params, jax.tree.map(shape, inputs))


def read_batch(graph: Graph, size: int) -> Read:
    """Whether no output depends on another example's input, nor on an example's place.

    Args:
      graph: Of ``(params, inputs) -> outputs``, all inputs and outputs with the batch first.
      size: Of the batch, at least 2.
    """
    count, names = len(graph.paths[0]), {}
    start = []
    for k, variable in enumerate(graph.inputs):
        layout = uniform_layout(graph.shape(variable), OWN)
        if k >= count:
            layout = ((Factor(size, FOLLOWED),), *layout[1:])
        start.append(Value(layout, names.setdefault(("input", k), len(names))))
    outputs = Walk(graph, names, PRIMITIVES).run(graph, start)
    return Read(graph, _seen(outputs, size), outputs, names, size)


def _seen(outputs, size):
    fault = first_fault(outputs)
    if fault is not None:
        return Verdict("mixed" if fault.kind == MIXED else "unproven", fault.reason)
    for value in outputs:
        lead = value.layout[0] if value.layout else (Factor(1, OWN),)
        if value.is_followed and lead != (Factor(size, FOLLOWED),):
            return Verdict("mixed", "the leading axis of the outputs is not the batch")
        if not value.is_followed and any(f.kind != SAME for f in lead):
            return Verdict("unproven", "the outputs hold rows that do not come from the inputs")
    return INDEPENDENT


def compared(read: Read, single: Graph) -> Verdict:
    """Whether the graph of one example, at every row, is what the batch's graph computes.

    Args:
      read: Of the batch.
      single: Of ``(params, example) -> output``, without the batch axis.
    """
    if read.verdict.outcome != "independent":
        return read.verdict
    whole = [read.graph.shape(v)[1:] for v in read.graph.outputs]
    part = [single.shape(v) for v in single.outputs]
    if whole != part:
        reason = f"one example has outputs of shapes {part}, of {read.size} each has {whole}"
        return Verdict("mixed", reason)
    names, seen = read.names, len(read.names)
    start = [
        Value(uniform_layout(single.shape(v), OWN), names.setdefault(("input", k), len(names)))
        for k, v in enumerate(single.inputs)
    ]
    walk = Walk(single, names, PRIMITIVES)
    outputs = walk.run(single, start)
    if first_fault(outputs) is None and _expressions(outputs) == _expressions(read.outputs):
        return INDEPENDENT
    for equation in single.equations:
        if any(walk.value(v).key >= seen for v in equation.outputs):
            reason = f"{equation.name} at {equation.source} is another for one example than for"
            return Verdict("unproven", f"{reason} {read.size}")
    return Verdict("unproven", f"one example takes other ways than {read.size}")


def _expressions(values):
    return [(v.key, [f.size for a in v.layout for f in a if f.kind == OWN]) for v in values]
