# SPDX-License-Identifier: Apache-2.0
"""Products whose entries are added up, and what works on the last axes as a whole.

    c:f32[3,5] = dot_general[dimension_numbers=(([1], [0]), ([], []))] a:f32[3,4] b:f32[4,5]

* label: positions of a's last axis go with those of b's first; c has the other two axes.
* fill: position k may go if a or b is zero there once it is masked; a zero column of b is one of c.
* resize: dot_general takes what is left of both.
* follow: a batch along a's first axis goes on into c; what is contracted is mixed.
* linear: b is read along its first axis, and its derivative is made of outer products with a.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from plprune.graph.entries import AS_IT_IS, REFUSED, UNKNOWN, Linear, Primitive
from plprune.graph.following.combining import Role, combined
from plprune.graph.following.walk import LOST, MIXED, Value, Walk, frozen
from plprune.graph.rules import factors
from plprune.graph.shrinking.fills import NOTHING, Fill, Fills
from plprune.graph.shrinking.known import NONNEGATIVE
from plprune.graph.shrinking.labels import Labels, Reduction
from plprune.graph.shrinking.resizing import Resizing, with_params
from plprune.graph.tracing import Equation, Graph

HIDDEN = "{} runs over it as a window"  # Kernel windows are no nodes; discovery leaves them out.


Pairs = list[tuple[Any, Any]]  # Dimensions of the left and the right operand, None of neither.


def _dimensions(graph: Graph, equation: Equation) -> tuple[Pairs, Pairs]:
    """Those that are contracted with each other, and those behind each axis of the result."""
    contracted, batch = (
        [(int(i), int(j)) for i, j in zip(*pair, strict=True)]
        for pair in equation.params["dimension_numbers"]
    )
    left, right = (
        [d for d in range(len(graph.shape(v))) if d not in [p[k] for p in (*contracted, *batch)]]
        for k, v in enumerate(equation.inputs)
    )
    return contracted, [*batch, *((i, None) for i in left), *((None, j) for j in right)]


def label_dot_general(labels: Labels, equation: Equation) -> None:
    """Contracted and batch axes go together in pairs; the rest pass."""
    contracted, kept = _dimensions(labels.graph, equation)
    left, right = equation.inputs
    a, b = labels[left], labels[right]
    for i, j in (pair for pair in (*contracted, *kept) if None not in pair):
        labels.unify(a[i], b[j], equation)
    labels[equation.outputs[0]] = [b[j] if i is None else a[i] for i, j in kept]
    for i, j in contracted:
        labels.reductions.append(Reduction(equation, ((left, i), (right, j)), 0.0))


def fill_dot_general(fills: Fills, equation: Equation) -> None:
    """A zero row gives a zero row."""
    fill_product(fills, equation, _dimensions(fills.graph, equation)[1])


def fill_product(fills: Fills, equation: Equation, kept: Pairs) -> None:
    """Zeros of two arrays whose products are added up, from the dimensions behind the result's."""
    left, right = (fills[v] for v in equation.inputs[:2])
    a, b = ({d: x.get(0.0, NOTHING) for d, x in enumerate(f.axes)} for f in (left, right))
    axes = tuple({0.0: a.get(i, NOTHING) | b.get(j, NOTHING)} for i, j in kept)
    whole = 0.0 if 0.0 in (left.whole, right.whole) else None
    fills[equation.outputs[0]] = Fill(whole, axes, min(left.sign, right.sign, NONNEGATIVE))


def follow_dot_general(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Contracted axes are summed over, axes of a batched product go together."""
    contracted, kept = _dimensions(walk.graph, equation)
    roles = []
    for side, variable in enumerate(equation.inputs):
        own: dict[Any, Role] = {pair[side]: place for place, pair in enumerate(kept)}
        own.update({pair[side]: ("contracted", k) for k, pair in enumerate(contracted)})
        roles.append([own[d] for d in range(len(walk.shape(variable)))])
    params = frozen({k: v for k, v in equation.params.items() if k != "dimension_numbers"})
    return combined(walk, equation, values, roles, how="contracts", kind=MIXED, params=params)


def dot_general_sums(equation: Equation) -> tuple[Sequence[int], Sequence[int]]:
    """Dimensions of either operand that are summed over."""
    return equation.params["dimension_numbers"][0]


def label_convolution(labels: Labels, equation: Equation) -> None:
    """Features are contracted; windows and the axes that they run over are fixed."""
    params = equation.params
    if params["batch_group_count"] != 1:
        labels.refuse(equation)
        return
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    image, kernel = equation.inputs
    a, b = labels[image], labels[kernel]
    for d in lhs_spec[2:]:
        labels.pin(a[d], equation, "{} slides over it")
    for d in rhs_spec[2:]:
        labels.pin(b[d], equation, HIDDEN)
    features, taken, made = a[lhs_spec[1]], b[rhs_spec[1]], b[rhs_spec[0]]
    if params["feature_group_count"] == 1:
        labels.unify(features, taken, equation)
    else:
        _tie_groups(labels, equation, features, taken, made)
    axes = [np.zeros(n, np.int64) for n in labels.shape(equation.outputs[0])]
    axes[out_spec[0]], axes[out_spec[1]] = a[lhs_spec[0]], made
    labels[equation.outputs[0]] = axes
    term = ((image, lhs_spec[1]), (kernel, rhs_spec[1]))
    labels.reductions.append(Reduction(equation, term, 0.0))


def _tie_groups(labels, equation, features, taken, made):
    """A grouped convolution reads features [groups x taken] and makes [groups x multiplier]."""
    groups = equation.params["feature_group_count"]
    group = labels.atoms.fresh(groups)
    labels.feature_groups[equation.outputs[0]] = group
    labels.unify(features, labels.atoms.product([group, taken]), equation)
    multiplier = labels.atoms.fresh(len(made) // groups)
    labels.unify(made, labels.atoms.product([group, multiplier]), equation)


def fill_convolution(fills: Fills, equation: Equation) -> None:
    """A zero kernel slice makes a zero feature."""
    image, kernel = (fills[v] for v in equation.inputs)
    lhs_spec, rhs_spec, out_spec = equation.params["dimension_numbers"]
    axes = list(fills.unknown(equation.outputs[0]).axes)
    axes[out_spec[0]] = {0.0: image.axes[lhs_spec[0]].get(0.0, NOTHING)}
    axes[out_spec[1]] = {0.0: kernel.axes[rhs_spec[0]].get(0.0, NOTHING)}
    whole = 0.0 if 0.0 in (image.whole, kernel.whole) else None
    sign = min(image.sign, kernel.sign, NONNEGATIVE)
    fills[equation.outputs[0]] = Fill(whole, tuple(axes), sign)


def resize_convolution(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """With the feature groups that are left."""
    groups = resizing.labels.feature_groups.get(equation.outputs[0])
    count = 1 if groups is None else int(resizing.kept(groups).sum())
    return with_params(equation, values, feature_group_count=count)


def follow_convolution(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Images stay apart, and so do output channels; positions stay where the kernel is a point."""
    params = equation.params
    lhs, rhs, out = (tuple(map(int, spec)) for spec in params["dimension_numbers"])
    left: list = [None] * len(lhs)
    right: list = [None] * len(rhs)
    left[lhs[0]] = out[0] if params["batch_group_count"] == 1 else ("images",)
    left[lhs[1]], right[rhs[1]] = ("channels",), ("channels",)
    right[rhs[0]] = out[1] if params["batch_group_count"] == 1 else ("outputs",)
    for k, (d, e) in enumerate(zip(lhs[2:], rhs[2:], strict=True)):
        own = params["window_strides"][k], params["padding"][k], params["lhs_dilation"][k]
        is_point = walk.shape(equation.inputs[1])[e] == 1 and own == (1, (0, 0), 1)
        left[d] = out[2 + k] if is_point else ("position", k, *own, params["rhs_dilation"][k])
        right[e] = ("kernel", k)
    rest = params["feature_group_count"], params["batch_group_count"], params["dimension_numbers"]
    rest += (frozen(params.get("precision")), str(params.get("preferred_element_type")))
    # Among channels in groups examples may stay apart, each in a group of its own.
    grouped = params["feature_group_count"] > 1 or params["batch_group_count"] > 1
    fault = {"how": "slides over", "kind": LOST if grouped else MIXED}
    return combined(walk, equation, values, [left, right], params=rest, **fault)


def convolution_sums(equation: Equation) -> tuple[Sequence[int], Sequence[int]]:
    """The channels, of a group."""
    image, kernel, _ = equation.params["dimension_numbers"]
    return (image[1],), (kernel[1],)


def label_fft(labels: Labels, equation: Equation) -> None:
    """Transformed axes are fixed, the others pass."""
    rank, count = len(labels[equation.inputs[0]]), len(equation.params["fft_lengths"])
    labels.pin_moved_along(equation, range(rank - count, rank), "{} transforms it")


def fill_fft(fills: Fills, equation: Equation) -> None:
    """The transform of zeros is zero."""
    fill, count = fills[equation.inputs[0]], len(equation.params["fft_lengths"])
    zeros = tuple({0.0: x.get(0.0, NOTHING)} for x in fill.axes[: len(fill.axes) - count])
    fills[equation.outputs[0]] = Fill(0.0 if fill.whole == 0 else None, (*zeros, *[{}] * count))


def follow_last_axes(
    walk: Walk, equation: Equation, values: list[Value], *, count: int | None
) -> list[Value]:
    """Leading axes go together, the last ones are worked on: decompositions, transforms."""
    if count is None:
        count = len(equation.params["fft_lengths"])
    ranks = [len(walk.shape(v)) for v in equation.inputs]
    roles = [(*range(n - count), *[("worked", k) for k in range(count)]) for n in ranks]
    params = frozen(equation.params)
    return combined(walk, equation, values, roles, how="works along", params=params)


def _last_axes(reads: str, count: int | None = 2) -> Primitive:
    return Primitive(REFUSED, UNKNOWN, AS_IT_IS, partial(follow_last_axes, count=count), reads)


ENTRIES = {
    "dot_general": Primitive(
        label_dot_general,
        fill_dot_general,
        AS_IT_IS,
        follow_dot_general,
        reads="dimension_numbers",
        linear=Linear(contracts=dot_general_sums, factors=factors.dot_general),
    ),
    "conv_general_dilated": Primitive(
        label_convolution,
        fill_convolution,
        resize_convolution,
        follow_convolution,
        reads="window_strides padding lhs_dilation rhs_dilation dimension_numbers "
        "feature_group_count batch_group_count",
        linear=Linear(contracts=convolution_sums, factors=factors.convolution),
    ),
    "fft": _last_axes("fft_type fft_lengths", count=None)._replace(label=label_fft, fill=fill_fft),
    "cholesky": _last_axes("symmetrize_input"),
    "eigh": _last_axes("lower sort_eigenvalues subset_by_index algorithm"),
    "svd": _last_axes("full_matrices compute_uv subset_by_index algorithm"),
    "qr": _last_axes("pivoting full_matrices use_magma"),
    "lu": _last_axes("pivots"),
    "triangular_solve": _last_axes("left_side lower transpose_a conjugate_a unit_diagonal"),
}
