# SPDX-License-Identifier: Apache-2.0
"""Arrays put together from pieces.

    c:f32[3,6] = concatenate[dimension=1] a:f32[3,4] b:f32[3,2]

* label: positions of c's last axis are those of a, then those of b; the first axes go together.
* fill: what is known of a holds in its part of c; an atom of both is known where both agree.
* resize: concatenate joins what is left; pad and tile count again.
* follow: a batch may be the first axis, along which nothing is joined.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.entries import AS_IT_IS, Linear, Primitive
from plprune.graph.following.combining import combined, kept_roles
from plprune.graph.following.layouts import SAME, Factor
from plprune.graph.following.walk import Value, Walk
from plprune.graph.shrinking.atoms import UNIT
from plprune.graph.shrinking.fills import Fill, Fills, agreed, fill_kept, meet
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing, new_positions
from plprune.graph.tracing import Equation


def label_concatenate(labels: Labels, equation: Equation) -> None:
    """Positions line up one operand after the other."""
    along = equation.params["dimension"]
    operands = [labels[v] for v in equation.inputs]
    axes = list(operands[0])
    for d in range(len(axes)):
        if d == along:
            axes[d] = np.concatenate([axes_of[d] for axes_of in operands])
        else:
            for axes_of in operands[1:]:
                labels.unify(axes[d], axes_of[d], equation)
    labels[equation.outputs[0]] = axes


def fill_concatenate(fills: Fills, equation: Equation) -> None:
    """Every operand in which an atom occurs must agree."""
    along, output = equation.params["dimension"], equation.outputs[0]
    operands = [fills[v] for v in equation.inputs]
    axes = []
    for d in fills.dims(output):
        parts = [
            (f, fills.members(v, d), d) for f, v in zip(operands, equation.inputs, strict=True)
        ]
        if d != along:  # An atom occurs in all operands, as all these axes go together.
            everyone = fills.members(output, d)
            parts = [(f, everyone, d) for f in operands]
        axes.append(agreed(parts))
    wholes = {f.whole for f in operands}
    whole, sign = wholes.pop() if len(wholes) == 1 else None, min(f.sign for f in operands)
    fills[output] = Fill(whole, tuple(axes), sign)


def follow_concatenate(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """All axes but one go together."""
    axis = {equation.params["dimension"]: ("joined",)}
    roles = kept_roles(len(walk.shape(equation.outputs[0])), axis, dropped=False)
    return combined(walk, equation, values, [roles] * len(values), how="joins pieces of")


def label_stack(labels: Labels, equation: Equation) -> None:
    """Operands go together; the new axis has a place for each and cannot shrink."""
    first, *others = equation.inputs
    for other in others:
        labels.unify_arrays(first, other, equation)
    axes = list(labels[first])
    axes.insert(equation.params["axis"], np.zeros(len(equation.inputs), np.int64))
    labels[equation.outputs[0]] = axes


def fill_stack(fills: Fills, equation: Equation) -> None:
    """What holds of all operands."""
    fill = reduce(meet, (fills[v] for v in equation.inputs))
    axes = list(fill.axes)
    axes.insert(equation.params["axis"], {})
    fills[equation.outputs[0]] = fill._replace(axes=tuple(axes))


def follow_stack(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """A new axis, along which the operands lie."""
    axis = equation.params["axis"]
    roles = [tuple(d + (d >= axis) for d in range(len(walk.shape(v)))) for v in equation.inputs]
    return combined(walk, equation, values, roles)


def label_tile(labels: Labels, equation: Equation) -> None:
    """Positions repeat; copies of a single position are free, since all their entries agree."""
    source, output = equation.inputs[0], equation.outputs[0]
    labels[output] = [
        np.tile(x, n) if len(x) > 1 else labels.atoms.fresh(n)
        for x, n in zip(labels[source], equation.params["reps"], strict=True)
    ]


def resize_tile(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Copies of a single position become as many as are left."""
    old, new = (resizing.shape(v) for v in (equation.inputs[0], equation.outputs[0]))
    return [jnp.tile(values[0], [n // m for m, n in zip(old, new, strict=True)])]


def follow_tile(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Every axis repeated as a whole."""
    del walk
    layout = tuple(
        ((Factor(n, SAME),) if n > 1 else ()) + axis
        for n, axis in zip(equation.params["reps"], values[0].layout, strict=True)
    )
    return [values[0]._replace(layout=layout)]


def label_pad(labels: Labels, equation: Equation) -> None:
    """Padded positions are free: every one holds the same value."""
    axes = []
    for x, sources in zip(labels[equation.inputs[0]], _pad_sources(labels, equation), strict=True):
        padded = np.append(x, UNIT)[sources]
        new = sources < 0
        if new.any() and len(padded) > 1:
            padded[new] = labels.atoms.fresh(max(2, int(new.sum())))[: int(new.sum())]
        axes.append(padded)
    labels[equation.outputs[0]] = axes


def _pad_sources(labels, equation) -> list[np.ndarray]:
    """Per dimension of a pad's output: the operand's position, -1 where padded."""
    sources = []
    shape = labels.shape(equation.inputs[0])
    for n, (low, high, interior) in zip(shape, equation.params["padding_config"], strict=True):
        inner = np.full((n, interior + 1), -1)
        inner[:, 0] = np.arange(n)
        inner = inner.ravel()[: max(0, inner.size - interior)]
        grown = np.concatenate([np.full(max(low, 0), -1), inner, np.full(max(high, 0), -1)])
        sources.append(grown[max(-low, 0) : len(grown) - max(-high, 0)])
    return sources


def fill_pad(fills: Fills, equation: Equation) -> None:
    """Padded entries hold the padding value, the others what they held."""
    source, value = equation.inputs
    output, filler = equation.outputs[0], fills[value]
    axes, padded = [], [(s < 0) for s in _pad_sources(fills.labels, equation)]
    for d in fills.dims(output):
        parts = [(fills[source], fills.members(source, d), d)]
        if padded[d].any():
            atoms = frozenset(fills.atoms.members(fills.labels[output][d][padded[d]]))
            parts.append((Fill(filler.whole, ({},) * (d + 1)), atoms, d))
        facts = agreed(parts)
        if any(p.any() for e, p in enumerate(padded) if e != d):  # Rows of padding cross this axis.
            facts = {v: a for v, a in facts.items() if v == filler.whole}
        axes.append(facts)
    whole = fills[source].whole if fills[source].whole == filler.whole else None
    fills[output] = Fill(whole, tuple(axes), min(fills[source].sign, filler.sign))


def resize_pad(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Append one padded position to each shrinking axis, then take from there what is padded."""
    operand, filler = values
    source, output = equation.inputs[0], equation.outputs[0]
    config = list(equation.params["padding_config"])
    before, after = resizing.axes(source), resizing.axes(output)
    shrinking = [d for d in range(len(after)) if not (before[d].all() and after[d].all())]
    for d in shrinking:
        config[d] = (0, 1, 0)
    result = jax.lax.pad(operand, filler, config)
    for d in shrinking:
        sources = _pad_sources(resizing.labels, equation)[d][after[d]]
        size = int(before[d].sum())
        positions = np.where(sources < 0, size, new_positions(before[d], sources))
        result = jnp.take(result, positions, axis=d, mode="clip")
    return [result]


def follow_pad(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are not padded stay."""
    config = equation.params["padding_config"]
    roles = [d if tuple(c) == (0, 0, 0) else ("pad", *c) for d, c in enumerate(config)]
    return combined(walk, equation, values, [roles, ()], how="pads")


def _entry(label, fill, resize, follow, reads, **more) -> Primitive:
    return Primitive(label, fill, resize, follow, reads, rounds=False, **more)


ENTRIES = {
    "concatenate": _entry(
        label_concatenate,
        fill_concatenate,
        AS_IT_IS,
        follow_concatenate,
        "dimension",
        linear=Linear(joins=0),
    ),
    "stack": _entry(label_stack, fill_stack, AS_IT_IS, follow_stack, "axis"),
    "tile": _entry(label_tile, fill_kept, resize_tile, follow_tile, "reps"),
    "pad": _entry(label_pad, fill_pad, resize_pad, follow_pad, "padding_config"),
}
