# SPDX-License-Identifier: Apache-2.0
"""Positions of an array written, or added to, at places that are known at run time.

    d:f32[9,4] = scatter-add[... update_window_dims=(1,)] a:f32[9,4] i:i32[20,1] c:f32[20,4]

* label: axes that updates cover whole, as the last, are those of a and c; positions that are looked
  up, and updates along which several meet, stay.
* fill: d is zero where a and c are.
* resize: scatter-add takes what is left of both; it names no sizes.
* follow: a batch along the last axis, or along an axis that a, i and c share, goes on into d.

With a of zeros this is `jax.ops.segment_sum`: nodes of a graph that add up their messages.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp

from plprune.graph.entries import AS_IT_IS, Primitive
from plprune.graph.following.combining import combined
from plprune.graph.following.walk import Value, Walk, frozen
from plprune.graph.shrinking.fills import Fill, Fills, meet
from plprune.graph.shrinking.known import ANY, NONNEGATIVE
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Equation, Graph


class _Places(NamedTuple):
    """Where the axes of a scatter's arrays meet."""

    windows: list[tuple[int, int]]  # Dimensions of the operand and the updates: covered.
    whole: list[bool]  # Per window: it covers the axis whole.
    shared: list[tuple[int, int, int]]  # Of the operand, the row numbers, the updates: batched.
    rows: list[tuple[int, int]]  # Of the row numbers and the updates: one update for each.
    written: list[int]  # Of the operand: at positions that are looked up.


def _places(graph: Graph, equation: Equation) -> _Places:
    numbers = equation.params["dimension_numbers"]
    operand, _, updates = (graph.shape(v) for v in equation.inputs)
    batched = [int(d) for d in numbers.operand_batching_dims]
    written = [int(d) for d in numbers.inserted_window_dims]
    kept = [d for d in range(len(operand)) if d not in (*written, *batched)]
    windows = [(d, int(w)) for d, w in zip(kept, numbers.update_window_dims, strict=True)]
    free = [d for d in range(len(updates)) if d not in numbers.update_window_dims]
    beside = [int(e) for e in numbers.scatter_indices_batching_dims]
    return _Places(
        windows,
        [updates[w] == operand[d] for d, w in windows],
        [(d, e, free[e]) for d, e in zip(batched, beside, strict=True)],
        [(e, u) for e, u in enumerate(free) if e not in beside],
        written,
    )


def label_scatter(labels: Labels, equation: Equation) -> None:
    """Axes that updates cover whole pass: such a window begins at 0, or is not there at all."""
    places = _places(labels.graph, equation)
    operand, indices, updates = (labels[v] for v in equation.inputs)
    for (d, w), whole in zip(places.windows, places.whole, strict=True):
        if whole:
            labels.unify(operand[d], updates[w], equation)
        else:
            for x in (operand[d], updates[w]):
                labels.pin(x, equation, "{} writes part of it")
    for d, e, u in places.shared:
        labels.unify(operand[d], indices[e], equation)
        labels.unify(operand[d], updates[u], equation)
    for d in places.written:
        labels.pin(operand[d], equation, "{} writes at positions of it")
    for e, u in places.rows:
        for x in (indices[e], updates[u]):
            labels.pin(x, equation, "{} writes its entries where others may be")
    labels.pin(indices[-1], equation, "{} takes its entries for positions")
    labels[equation.outputs[0]] = operand


def fill_scatter(fills: Fills, equation: Equation, *, known: Sequence[float] | None = None) -> None:
    """What holds of both arrays, as far as combining two such entries gives another."""
    output, places = equation.outputs[0], _places(fills.graph, equation)
    updates = fills[equation.inputs[2]]
    if equation.name == "scatter" and equation.params["update_jaxpr"] is not None:
        fills[output] = fills.unknown(output)  # A function of the entries there.
        return
    axes = [{} for _ in fills.dims(output)]
    for (d, w), whole in zip(places.windows, places.whole, strict=True):
        axes[d] = updates.axes[w] if whole else {}
    for d, _, u in places.shared:
        axes[d] = updates.axes[u]
    found = meet(fills[equation.inputs[0]], updates._replace(axes=tuple(axes)))
    if known is not None:
        axes = [{v: a for v, a in x.items() if v in known} for x in found.axes]
        is_real = jnp.issubdtype(fills.graph.avals[output].dtype, jnp.floating)
        keeps_sign = is_real and equation.name != "scatter-sub"  # Integers may overflow.
        sign = min(found.sign, NONNEGATIVE) if keeps_sign else ANY
        found = Fill(found.whole if found.whole in known else None, tuple(axes), sign)
    fills[output] = found


def follow_scatter(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that updates cover whole go over to the result, and so do batched ones."""
    places, numbers = _places(walk.graph, equation), equation.params["dimension_numbers"]
    operand, rows, updates = (walk.shape(v) for v in equation.inputs)
    looked_up = tuple(map(int, numbers.scatter_dims_to_operand_dims))
    own: list = [("updated", *looked_up)] * len(operand)
    moved: list = [("row",)] * len(updates)
    indices: list = [*[("row",)] * (len(rows) - 1), ("index",)]
    for (d, w), whole in zip(places.windows, places.whole, strict=True):
        own[d] = moved[w] = d if whole and d not in looked_up else ("window",)
    for d, e, u in places.shared:
        own[d] = indices[e] = moved[u] = d
    names = ("mode", "indices_are_sorted", "unique_indices")
    rest = frozen({name: equation.params.get(name) for name in ("dimension_numbers", *names)})
    roles = [own, indices, moved]
    return combined(walk, equation, values, roles, how="writes along", params=(rest,))


def _scatter(known: Sequence[float] | None = None, rounds: bool = True) -> Primitive:
    fill = partial(fill_scatter, known=known)
    reads = "dimension_numbers update_jaxpr mode"
    return Primitive(label_scatter, fill, AS_IT_IS, follow_scatter, reads, rounds=rounds)


ENTRIES = {
    "scatter": _scatter(rounds=False),
    **dict.fromkeys(("scatter-add", "scatter-sub"), _scatter((0.0,))),
    "scatter-mul": _scatter((0.0, 1.0)),
    **dict.fromkeys(("scatter-min", "scatter-max"), _scatter(rounds=False)),
}
