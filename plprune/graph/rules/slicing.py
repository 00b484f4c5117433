# SPDX-License-Identifier: Apache-2.0
"""Parts of axes cut out, dealt out, turned around or written.

    b:f32[3,2] = slice[start_indices=(0, 1) limit_indices=(3, 3) strides=None] a:f32[3,4]

* label: positions of b's last axis are positions 1 and 2 of a's.
* fill: what is known of a's entries holds of those that are selected.
* resize: without position 0 of a's last axis, slice starts at 0.
* follow: a batch may be the first axis, which is taken whole.
* linear: scaling a slice of a scales the same slice of b.

A new primitive that takes ranges of positions is a `_ranges`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from plprune.graph.entries import AS_IT_IS, Linear, Primitive, in_place
from plprune.graph.following.combining import combined, kept_roles
from plprune.graph.following.walk import Value, Walk
from plprune.graph.shrinking.fills import Fills, fill_kept, meet
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing, new_positions, take, with_params
from plprune.graph.tracing import Equation

# (params, operand's shape) -> per output and axis, the positions that it takes.
Ranges = Callable[[dict, Sequence[int]], list[list[range]]]


def label_ranges(labels: Labels, equation: Equation, *, ranges: Ranges) -> None:
    """Positions are selected."""
    (source,) = equation.inputs
    taken = ranges(equation.params, labels.shape(source))
    for output, own in zip(equation.outputs, taken, strict=True):
        labels[output] = [x[_listed(r)] for x, r in zip(labels[source], own, strict=True)]


def _listed(positions):
    return np.asarray(positions, np.int64)  # Of no positions, NumPy would make floats.


def resize_ranges(
    resizing: Resizing, equation: Equation, values: Sequence[Any], *, ranges: Ranges
) -> list[Any]:
    """The selected positions that are left, where they lie now."""
    axes, results = resizing.axes(equation.inputs[0]), []
    for own in ranges(equation.params, list(map(len, axes))):
        (result,) = values
        for d, (kept, positions) in enumerate(zip(axes, map(_listed, own), strict=True)):
            result = take(result, new_positions(kept, positions[kept[positions]]), d)
        results.append(result)
    return results


def follow_ranges(
    walk: Walk, equation: Equation, values: list[Value], *, ranges: Ranges, how: str
) -> list[Value]:
    """Axes that are taken whole, in order, stay."""
    shape = walk.shape(equation.inputs[0])
    parts = zip(*ranges(equation.params, shape), strict=True)
    roles = [
        d if set(own) == {range(n)} else ("taken", *own)
        for d, (n, own) in enumerate(zip(shape, parts, strict=True))
    ]
    return combined(walk, equation, values, [roles], how=how)


def _sliced(params, shape):
    starts, stops = params["start_indices"], params["limit_indices"]
    bounds = zip(starts, stops, params["strides"] or (1,) * len(shape), strict=True)
    return [[range(*map(int, own)) for own in bounds]]


def _split(params, shape):
    ends = [0, *accumulate(params["sizes"])]
    whole = [range(n) for n in shape]
    before, after = whole[: params["axis"]], whole[params["axis"] + 1 :]
    return [[*before, range(*part), *after] for part in pairwise(ends)]


def _reversed(params, shape):
    return [[range(n)[:: -1 if d in params["dimensions"] else 1] for d, n in enumerate(shape)]]


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


def _ranges(ranges, reads, linear, how="cuts", resize=resize_ranges):
    label, follow = (partial(rule, ranges=ranges) for rule in (label_ranges, follow_ranges))
    resize = None if resize is AS_IT_IS else partial(resize, ranges=ranges)
    return _entry(label, fill_kept, resize, partial(follow, how=how), reads, linear=linear)


_SCALES = Linear(scales=(0,))
ENTRIES = {
    "slice": _ranges(_sliced, "start_indices limit_indices strides", _SCALES),
    "split": _ranges(_split, "sizes axis", _SCALES),
    "rev": _ranges(_reversed, "dimensions", Linear(moves=in_place), "reverses", AS_IT_IS),
    "unstack": _entry(label_unstack, fill_unstack, AS_IT_IS, follow_unstack, "axis"),
    "dynamic_slice": _entry(
        label_dynamic_slice,
        fill_kept,
        resize_windows,
        follow_dynamic_slice,
        "slice_sizes",
        linear=Linear(scales=(0,), places=1),
    ),
    "dynamic_update_slice": _entry(label_update, fill_update, AS_IT_IS, follow_update, reads=""),
}
