# SPDX-License-Identifier: Apache-2.0
"""Parts of axes cut out, dealt out or written.

    b:f32[3,2] = slice[start_indices=(0, 1) limit_indices=(3, 3) strides=None] a:f32[3,4]

* label: positions of b's last axis are positions 1 and 2 of a's.
* fill: what is known of a's entries holds of those that are selected.
* resize: without position 0 of a's last axis, slice starts at 0.
* follow: a batch may be the first axis, which is taken whole.
* linear: scaling a slice of a scales the same slice of b.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from plprune.graph.entries import AS_IT_IS, Linear, Primitive
from plprune.graph.following.combining import combined, kept_roles
from plprune.graph.following.walk import Value, Walk
from plprune.graph.rules.moving import fill_kept
from plprune.graph.shrinking.fills import Fills, meet
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing, new_positions, take, with_params
from plprune.graph.tracing import Equation


def label_slice(labels: Labels, equation: Equation) -> None:
    """Positions are selected."""
    labels[equation.outputs[0]] = [
        x[selected]
        for x, selected in zip(labels[equation.inputs[0]], _slices(equation), strict=True)
    ]


def _slices(equation) -> list[slice]:
    """Python slices of a `slice` equation, one per dimension."""
    params = equation.params
    starts, stops = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    return [slice(*bounds) for bounds in zip(starts, stops, strides, strict=True)]


def resize_slice(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """The selected positions that are left, where they lie now."""
    (result,) = values
    axes = resizing.axes(equation.inputs[0])
    for d, (kept, selected) in enumerate(zip(axes, _slices(equation), strict=True)):
        wanted = np.arange(len(kept))[selected]
        result = take(result, new_positions(kept, wanted[kept[wanted]]), d)
    return [result]


def follow_slice(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are taken whole stay."""
    parts = ((s.start, s.stop, s.step) for s in _slices(equation))
    shape = walk.shape(equation.inputs[0])
    roles = [d if part == (0, shape[d], 1) else ("slice", *part) for d, part in enumerate(parts)]
    return combined(walk, equation, values, [roles], how="cuts")


def label_split(labels: Labels, equation: Equation) -> None:
    """Positions are dealt out."""
    along, cuts = equation.params["axis"], np.cumsum(equation.params["sizes"])[:-1]
    axes = labels[equation.inputs[0]]
    for output, part in zip(equation.outputs, np.split(axes[along], cuts), strict=True):
        labels[output] = [part if d == along else x for d, x in enumerate(axes)]


def resize_split(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Into parts of the sizes that are left."""
    axis = equation.params["axis"]
    sizes = tuple(resizing.shape(output)[axis] for output in equation.outputs)
    return with_params(equation, values, sizes=sizes)


def follow_split(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """All axes but one stay."""
    axis, sizes = equation.params["axis"], tuple(equation.params["sizes"])
    roles = kept_roles(len(walk.shape(equation.inputs[0])), {axis: ("split", sizes)}, dropped=False)
    return combined(walk, equation, values, [roles], how="cuts")


def label_unstack(labels: Labels, equation: Equation) -> None:
    """Every position of the axis becomes an array of its own, so none can go."""
    along, axes = equation.params["axis"], labels[equation.inputs[0]]
    labels.pin(axes[along], equation, "{} takes every position of it apart")
    for output in equation.outputs:
        labels[output] = [x for d, x in enumerate(axes) if d != along]


def fill_unstack(fills: Fills, equation: Equation) -> None:
    """Other axes keep their facts."""
    fill, along = fills[equation.inputs[0]], equation.params["axis"]
    kept = fill._replace(axes=tuple(x for d, x in enumerate(fill.axes) if d != along))
    for output in equation.outputs:
        fills[output] = kept


def follow_unstack(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """An axis that is dealt out to the outputs."""
    axis = equation.params["axis"]
    roles = kept_roles(len(walk.shape(equation.inputs[0])), {axis: ("unstacked",)})
    return combined(walk, equation, values, [roles], how="takes apart")


def label_dynamic_slice(labels: Labels, equation: Equation) -> None:
    """Axes cut at a position known only at run time are fixed."""
    shape, sizes = labels.shape(equation.inputs[0]), equation.params["slice_sizes"]
    touched = [d for d, (n, m) in enumerate(zip(shape, sizes, strict=True)) if n != m]
    text = "{} cuts it at a position known only at run time"
    labels.pin_moved_along(equation, touched, text)


def resize_windows(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Slice sizes that took an axis whole take what is left of it."""
    axes = resizing.axes(equation.inputs[0])
    sizes = [
        int(kept.sum()) if size == len(kept) else size
        for kept, size in zip(axes, equation.params["slice_sizes"], strict=True)
    ]
    return with_params(equation, values, slice_sizes=tuple(sizes))


def follow_dynamic_slice(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are taken whole stay: their start is clamped to zero."""
    shape, sizes = walk.shape(equation.inputs[0]), equation.params["slice_sizes"]
    own = [d if sizes[d] == n else ("cut", d, sizes[d]) for d, n in enumerate(shape)]
    roles = [own, *[()] * (len(values) - 1)]
    return combined(walk, equation, values, roles, how="cuts")


def label_update(labels: Labels, equation: Equation) -> None:
    """Whole axes go together, partly written ones are fixed."""
    operand, update = (labels[v] for v in equation.inputs[:2])
    for x, y in zip(operand, update, strict=True):
        if len(x) == len(y):
            labels.unify(x, y, equation)
        else:
            for partial in (x, y):
                labels.pin(partial, equation, "{} writes part of it at a run-time position")
    labels[equation.outputs[0]] = operand


def fill_update(fills: Fills, equation: Equation) -> None:
    """Both arrays must agree."""
    fills[equation.outputs[0]] = meet(fills[equation.inputs[0]], fills[equation.inputs[1]])


def follow_update(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are written whole stay: their start is clamped to zero."""
    shape, update = (walk.shape(v) for v in equation.inputs[:2])
    own = [d if n == update[d] else ("written", d) for d, n in enumerate(shape)]
    roles = [own, own, *[()] * (len(values) - 2)]
    return combined(walk, equation, values, roles, how="writes along")


def _entry(label, fill, resize, follow, reads, **more) -> Primitive:
    return Primitive(label, fill, resize, follow, reads, rounds=False, **more)


_SCALES = Linear(scales=(0,))
ENTRIES = {
    "slice": _entry(
        label_slice,
        fill_kept,
        resize_slice,
        follow_slice,
        "start_indices limit_indices strides",
        linear=_SCALES,
    ),
    "split": _entry(
        label_split, fill_kept, resize_split, follow_split, "sizes axis", linear=_SCALES
    ),
    "unstack": _entry(label_unstack, fill_unstack, AS_IT_IS, follow_unstack, "axis"),
    "dynamic_slice": _entry(
        label_dynamic_slice, fill_kept, resize_windows, follow_dynamic_slice, "slice_sizes"
    ),
    "dynamic_update_slice": _entry(label_update, fill_update, AS_IT_IS, follow_update, reads=""),
}
