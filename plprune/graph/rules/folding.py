# SPDX-License-Identifier: Apache-2.0
"""Axes whose entries are summed, compared or worked on in order.

    b:f32[3] = reduce_max[axes=(1,)] a:f32[3,4]

* label: position k of a's last axis may go if leaving it out changes no maximum; b has a's first.
* fill: that is so where a is minus infinity, or zero among nonnegative entries, once k is masked.
* resize: reduce_max takes what is left; argmax numbers its winners as in the full axis.
* follow: a batch along the first axis goes on into b; one along the last is mixed.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from plprune.graph.entries import AS_IT_IS, REFUSED, UNKNOWN, Primitive
from plprune.graph.following.combining import combined, kept_roles
from plprune.graph.following.walk import MIXED, Value, Walk, frozen
from plprune.graph.shrinking.fills import NOTHING, Fill, Fills, fill_kept
from plprune.graph.shrinking.known import NONNEGATIVE
from plprune.graph.shrinking.labels import Labels, Reduction
from plprune.graph.shrinking.resizing import Resizing
from plprune.graph.tracing import Equation, bind


def label_fold(labels: Labels, equation: Equation, *, identity: float) -> None:
    """A folded axis may shrink only where its removed entries are neutral: see the second pass."""
    folded = equation.params["axes"]
    for source, target in zip(equation.inputs, equation.outputs, strict=True):
        axes = labels[source]
        if equation.name == "reduce_and" and labels.graph.avals[source].dtype != np.bool_:
            identity = -1.0  # All bits.
        labels[target] = [x for d, x in enumerate(axes) if d not in folded]
        for d in folded:
            labels.reductions.append(Reduction(equation, ((source, int(d)),), identity))


def label_winner(labels: Labels, equation: Equation, *, identity: float) -> None:
    """A fold whose result is a position of the axis."""
    label_fold(labels, equation, identity=identity)
    for d in equation.params["axes"]:
        axis = labels[equation.inputs[0]][d]
        labels.hold_choice(equation.outputs[0], axis)
        labels.ranked.append(axis)


def fill_fold(fills: Fills, equation: Equation, *, known: Sequence[float] | None = None) -> None:
    """A fold of equal entries is known, of sums and products only at some values."""
    for source, output in zip(equation.inputs, equation.outputs, strict=True):
        if 0 in fills.graph.shape(source):  # Of no entries at all.
            fills[output] = fills.unknown(output)
            continue
        whole, axes, sign = fills[source]
        axes = [x for d, x in enumerate(axes) if d not in equation.params["axes"]]
        if known:
            axes = [{v: a for v, a in x.items() if v in known} for x in axes]
            whole = whole if whole in known else None
        fills[output] = Fill(whole, tuple(axes), sign)


def resize_winner(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Positions are reported in the numbering of the full array."""
    (axis,) = equation.params["axes"]
    kept = np.flatnonzero(resizing.axes(equation.inputs[0])[axis])
    (winner,) = bind(equation, values)
    return [jnp.asarray(kept, winner.dtype)[winner]]


def follow_fold(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """What is left keeps its order."""
    worked = dict.fromkeys(equation.params["axes"], ("reduced",))
    roles = [kept_roles(len(walk.shape(equation.inputs[0])), worked)]
    rest = _rest(equation, "axes")
    return combined(walk, equation, values, roles, how="reduces over", kind=MIXED, params=rest)


def _rest(equation, *names):
    return frozen({name: value for name, value in equation.params.items() if name not in names})


def label_top_k(labels: Labels, equation: Equation) -> None:
    """The k winners of an axis: as in argmax, removed entries must be minus infinity."""
    (source,), (values, positions) = equation.inputs, equation.outputs
    axes = labels[source]
    ranked = equation.params.get("axis", -1) % len(axes)
    k = np.zeros(labels.shape(values)[ranked], np.int64)
    for output in (values, positions):
        labels[output] = [k if d == ranked else x for d, x in enumerate(axes)]
    labels.hold_choice(positions, axes[ranked])
    labels.ranked.append(axes[ranked])
    labels.reductions.append(Reduction(equation, ((source, ranked),), -np.inf))


def resize_top_k(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Positions are reported in the numbering of the full array; k of them must be left."""
    (operand,) = values
    ranked = equation.params.get("axis", -1) % operand.ndim
    k = resizing.shape(equation.outputs[0])[ranked]
    if operand.shape[ranked] < k:
        raise ValueError(
            f"keep must leave at least {k} nodes for {equation.name} at {equation.source}, "
            f"got {operand.shape[ranked]}."
        )
    kept = np.flatnonzero(resizing.axes(equation.inputs[0])[ranked])
    values, positions = bind(equation, values)
    return [values, jnp.asarray(kept, positions.dtype)[positions]]


def label_sort(labels: Labels, equation: Equation) -> None:
    """Sorting mixes positions; operands sorted together have the same axes."""
    for other in equation.inputs[1:]:
        labels.unify_arrays(equation.inputs[0], other, equation)
    labels.pin_moved_along(equation, [equation.params["dimension"]], "{} reorders it")


def label_running(labels: Labels, equation: Equation) -> None:
    """Running sums depend on what comes before."""
    labels.pin_moved_along(equation, [equation.params["axis"]], "{} runs along it")


def fill_sum(fills: Fills, equation: Equation) -> None:
    """Sums along other axes keep zeros."""
    fill = fills[equation.inputs[0]]
    zeros = tuple({0.0: x.get(0.0, NOTHING)} for x in fill.axes)
    whole = 0.0 if fill.whole == 0 else None
    fills[equation.outputs[0]] = Fill(whole, zeros, min(fill.sign, NONNEGATIVE))


def follow_along(
    walk: Walk, equation: Equation, values: list[Value], *, parameter: str, how: str
) -> list[Value]:
    """Work along one axis, which stays or changes its length."""
    rank = len(walk.shape(equation.inputs[0]))
    axis = equation.params.get(parameter, rank - 1) % max(rank, 1)
    roles = [(*range(axis), ("worked",), *range(axis + 1, rank)) for _ in values]
    rest = _rest(equation, parameter)
    return combined(walk, equation, values, roles, how=how, kind=MIXED, params=rest)


_WINDOW = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")


def label_window(labels: Labels, equation: Equation) -> None:
    """Pooling: axes with a window are fixed."""
    names = ("window_dimensions", "window_strides", "base_dilation", "padding")
    spec = zip(*(equation.params[name] for name in names), strict=True)
    touched = [
        d
        for d, (size, stride, dilation, pads) in enumerate(spec)
        if (size, stride, dilation, *pads) != (1, 1, 1, 0, 0)
    ]
    labels.pin_moved_along(equation, touched, "{} pools over it")


def follow_window(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes with a window of one entry, step one and no padding stay."""
    rank = len(walk.shape(equation.inputs[0]))
    parts = [tuple(equation.params.get(name) or (None,) * rank) for name in _WINDOW]
    plain = ((1, None), (1, None), ((0, 0), None), (1, None), (1, None))
    roles = [
        d if all(x in ok for x, ok in zip(own, plain, strict=True)) else ("window", *own)
        for d, own in enumerate(zip(*parts, strict=True))
    ]
    whole = [roles if len(walk.shape(v)) == rank else () for v in equation.inputs]
    rest = _rest(equation, *_WINDOW)
    return combined(walk, equation, values, whole, how="pools over", kind=MIXED, params=rest)


def _fold(identity: float, fill=fill_fold, *, label=label_fold, resize=AS_IT_IS, **more):
    label = partial(label, identity=identity)  # Entries equal to it may be left out of the fold.
    return Primitive(label, fill, resize, follow_fold, "axes", **more)


def _running(fill=UNKNOWN, **more):
    follow = partial(follow_along, parameter="axis", how="accumulates over")
    return Primitive(label_running, fill, AS_IT_IS, follow, "axis reverse", **more)


def _window(fill, *, label=label_window, also="", **more):
    return Primitive(label, fill, AS_IT_IS, follow_window, " ".join(_WINDOW) + also, **more)


def _sorting(label, resize, parameter, reads):
    follow = partial(follow_along, parameter=parameter, how="sorts along")
    return Primitive(label, UNKNOWN, resize, follow, reads, rounds=False)


ENTRIES = {
    "reduce_sum": _fold(0.0, partial(fill_fold, known=(0.0, -math.inf))),
    "reduce_max": _fold(-math.inf, rounds=False),
    "reduce_min": _fold(math.inf, rounds=False),
    "reduce_prod": _fold(1.0, partial(fill_fold, known=(0.0, 1.0))),
    "reduce_and": _fold(1.0),
    "reduce_or": _fold(0.0),
    "reduce_xor": _fold(0.0, UNKNOWN),
    "argmax": _fold(-math.inf, UNKNOWN, label=label_winner, resize=resize_winner),
    "argmin": _fold(math.inf, UNKNOWN, label=label_winner, resize=resize_winner),
    "top_k": _sorting(label_top_k, resize_top_k, "axis", "k axis"),
    "sort": _sorting(label_sort, AS_IT_IS, "dimension", "dimension num_keys"),
    "cumsum": _running(fill_sum),
    "cumprod": _running(),
    "cumlogsumexp": _running(),
    **dict.fromkeys(("cummax", "cummin"), _running(rounds=False)),
    "reduce_window_sum": _window(fill_sum),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _window(fill_kept, rounds=False)),
    **dict.fromkeys(  # Derivatives of pooling.
        ("select_and_scatter_add", "select_and_gather_add"),
        _window(UNKNOWN, label=REFUSED, also=" select_prim"),
    ),
}
