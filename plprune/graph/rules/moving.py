# SPDX-License-Identifier: Apache-2.0
"""Entries that go elsewhere and stay what they are.

    b:f32[6,2] = reshape[new_sizes=(6, 2)] a:f32[2,3,2]

* label: position 3 i + j of b's first axis is removed with i or with j, the axes of a.
* fill: what is known of a's entries at i or at j holds at all positions of b that contain them.
* resize: reshape takes the sizes that are left: (3, 2) without one i.
* follow: a batch that is i runs along the outer factor of b's first axis; it must not be split.

A new primitive that gives each axis a new place, as transpose does, is a `_placed`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from plprune.graph.entries import AS_IT_IS, UNKNOWN, Linear, Primitive
from plprune.graph.following.combining import combined
from plprune.graph.following.layouts import OWN, SAME, regrouped, uniform_layout
from plprune.graph.following.walk import LOST, Value, Walk
from plprune.graph.shrinking.fills import Fills, agreed
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.reshaping import common_factors
from plprune.graph.shrinking.resizing import Resizing
from plprune.graph.tracing import Equation, Graph

# (params, operand's rank, result's rank) -> per axis of the result the operand's, None if new.
Places = Callable[[dict, int, int], Sequence[int | None]]


def _sources(graph, equation, places):
    ranks = (len(graph.shape(v)) for v in (equation.inputs[0], equation.outputs[0]))
    return list(places(equation.params, *ranks))


def label_placed(labels: Labels, equation: Equation, *, places: Places) -> None:
    """Axes move; new and stretched ones can shrink freely, since all their entries agree."""
    source, target = equation.inputs[0], equation.outputs[0]
    old, shape = labels.shape(source), labels.shape(target)
    sources = zip(_sources(labels.graph, equation, places), shape, strict=True)
    kept = [k if k is not None and old[k] == n else None for k, n in sources]
    labels[target] = [
        labels.atoms.fresh(n) if k is None else labels[source][k]
        for k, n in zip(kept, shape, strict=True)
    ]
    if source in labels.positions and labels.positions[source] in kept:
        labels.positions[target] = kept.index(labels.positions[source])
    if source in labels.choices:
        labels.choices[target] = labels.choices[source]


def fill_placed(fills: Fills, equation: Equation, *, places: Places) -> None:
    """Axes move with their facts; new axes know nothing."""
    fill, sources = fills[equation.inputs[0]], _sources(fills.graph, equation, places)
    axes = tuple({} if k is None else fill.axes[k] for k in sources)
    fills[equation.outputs[0]] = fill._replace(axes=axes)


def follow_placed(
    walk: Walk, equation: Equation, values: list[Value], *, places: Places
) -> list[Value]:
    """Axes move; new axes, and axes of size 1, are constant."""
    if len(values) > 1:  # Sizes that are themselves computed.
        return walk.opaque(equation, values)
    sources = _sources(walk.graph, equation, places)
    rank = len(walk.shape(equation.inputs[0]))
    roles = [sources.index(d) if d in sources else ("dropped",) for d in range(rank)]
    return combined(walk, equation, values, [roles], made=SAME, is_move=True)


def marks_placed(graph: Graph, equation: Equation, axes: Sequence[Any], *, places: Places) -> Any:
    """Marks move with their axes."""
    sources = _sources(graph, equation, places)
    return tuple(frozenset() if k is None else axes[k] for k in sources)


def _placed(reads: str, places: Places, resize: Callable[..., Any] | None = AS_IT_IS) -> Primitive:
    label, fill, follow, moves = (
        partial(rule, places=places)
        for rule in (label_placed, fill_placed, follow_placed, marks_placed)
    )
    return _entry(label, fill, resize, follow, reads, moves)


def _transposed(params, old, new):
    del old, new
    return params["permutation"]


def _squeezed(params, old, new):
    del new
    return [d for d in range(old) if d not in params["dimensions"]]


def _broadcast(params, old, new):
    del old
    placed = {int(d): k for k, d in enumerate(params["broadcast_dimensions"])}
    return [placed.get(d) for d in range(new)]


def resize_broadcast(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """The new shape at once: the full array is never built."""
    dims = equation.params["broadcast_dimensions"]
    return [jax.lax.broadcast_in_dim(values[0], resizing.shape(equation.outputs[0]), dims)]


def label_reshape(labels: Labels, equation: Equation) -> None:
    """Merged axes are products; a split axis turns out to have been one."""
    source, target = equation.inputs[0], equation.outputs[0]
    refinement = common_factors(labels.shape(source), labels.shape(target))
    if refinement is None:
        labels.refuse(equation)
        return
    factor_labels = {}
    for axis, factors in zip(labels[source], refinement.old, strict=True):
        if len(factors) == 1:
            factor_labels[factors[0]] = axis
        elif factors:
            parts = [labels.atoms.fresh(refinement.sizes[f]) for f in factors]
            factor_labels.update(zip(factors, parts, strict=True))
            labels.unify(axis, labels.atoms.product(parts), equation)
    labels[target] = [
        labels.atoms.product([factor_labels[f] for f in factors]) for factors in refinement.new
    ]
    if source in labels.choices:
        labels.choices[target] = labels.choices[source]


def fill_reshape(fills: Fills, equation: Equation) -> None:
    """A merged position contains an atom if one of its parts does; all parts must agree."""
    source, output = equation.inputs[0], equation.outputs[0]
    refinement = common_factors(fills.graph.shape(source), fills.graph.shape(output))
    if refinement is None:
        fills[output] = fills.unknown(output)
        return
    axes = []
    for d, factors in enumerate(refinement.new):
        parts = [i for i, own in enumerate(refinement.old) if set(own) & set(factors)]
        facts = agreed([(fills[source], fills.members(source, i), i) for i in parts])
        members = fills.members(output, d)
        axes.append({value: atoms & members for value, atoms in facts.items()})
    fills[output] = fills[source]._replace(axes=tuple(axes))


def resize_reshape(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """To the sizes that are left."""
    return [jnp.reshape(values[0], resizing.shape(equation.outputs[0]))]


def follow_reshape(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Row-major regrouping of factors."""
    if len(values) > 1:  # Sizes that are themselves computed.
        return walk.opaque(equation, values)
    (value,), shape = values, walk.shape(equation.outputs[0])
    layout = regrouped(value.layout, shape)
    if layout is not None:
        return [value._replace(layout=layout)]
    if not value.is_followed:  # What is constant in part of an axis only need not be.
        key = walk.named("reshape", value.key, value.layout, shape)
        return [Value(uniform_layout(shape, OWN), key, value.fault)]
    fault = value.fault or walk.fault(LOST, equation, "splits")
    return [Value(uniform_layout(shape, OWN), value.key, fault)]


def marks_reshaped(graph: Graph, equation: Equation, axes: Sequence[Any]) -> Any:
    """An axis has the marks of all axes that it has a factor of."""
    old, new = (graph.shape(v) for v in (equation.inputs[0], equation.outputs[0]))
    refinement = common_factors(old, new)
    if refinement is None:
        return (frozenset().union(*axes),) * len(new)
    owner = {f: axes[d] for d, factors in enumerate(refinement.old) for f in factors}
    return tuple(frozenset().union(*(owner[f] for f in factors)) for factors in refinement.new)


def label_iota(labels: Labels, equation: Equation) -> None:
    """Every position holds its number in the full array, whatever is removed around it."""
    output = equation.outputs[0]
    labels[output] = labels.fresh(output)
    labels.hold_positions(output, equation.params["dimension"])


def follow_iota(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Constant along all axes but one."""
    del values
    (out,) = equation.outputs
    shape, axis = walk.shape(out), equation.params["dimension"]
    layout = list(uniform_layout(shape, SAME))
    layout[axis] = uniform_layout(shape[axis : axis + 1], OWN)[0]
    return [Value(tuple(layout), walk.named("iota", str(equation.params["dtype"]), shape[axis]))]


def _entry(label, fill, resize, follow, reads, moves) -> Primitive:
    return Primitive(label, fill, resize, follow, reads, Linear(moves=moves), rounds=False)


ENTRIES = {
    "transpose": _placed("permutation", _transposed),
    "squeeze": _placed("dimensions", _squeezed),
    "broadcast_in_dim": _placed("shape broadcast_dimensions", _broadcast, resize_broadcast),
    "reshape": _entry(  # What `dimensions` asks for is an equation of its own.
        label_reshape, fill_reshape, resize_reshape, follow_reshape, "new_sizes", marks_reshaped
    ),
    "iota": Primitive(label_iota, UNKNOWN, AS_IT_IS, follow_iota, "dtype shape dimension"),
}
