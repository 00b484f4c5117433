# SPDX-License-Identifier: Apache-2.0
"""How contractions, windows and indexing label their axes."""

import numpy as np

from plprune.graph.label_rules import hold_choice, refuse
from plprune.graph.labels import Labels, Reduction
from plprune.graph.tracing import Equation

HIDDEN = "{} runs over it as a window"  # Kernel windows are no nodes; discovery leaves them out.


def dot_general(labels: Labels, equation: Equation) -> None:
    """Contracted and batch axes go together in pairs; the rest pass."""
    (left_contracted, right_contracted), (left_batch, right_batch) = equation.params[
        "dimension_numbers"
    ]
    left, right = equation.inputs
    a, b = labels[left], labels[right]
    for i, j in zip(
        (*left_contracted, *left_batch), (*right_contracted, *right_batch), strict=True
    ):
        labels.unify(a[i], b[j], equation)
    free_left = [x for i, x in enumerate(a) if i not in (*left_contracted, *left_batch)]
    free_right = [x for j, x in enumerate(b) if j not in (*right_contracted, *right_batch)]
    labels[equation.outputs[0]] = [a[i] for i in left_batch] + free_left + free_right
    for i, j in zip(left_contracted, right_contracted, strict=True):
        labels.reductions.append(Reduction(equation, ((left, int(i)), (right, int(j))), 0.0))


def convolution(labels: Labels, equation: Equation) -> None:
    """Features are contracted; windows and the axes that they run over are fixed."""
    params = equation.params
    if params["batch_group_count"] != 1:
        return refuse(labels, equation)
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
    return None


def _tie_groups(labels, equation, features, taken, made):
    """A grouped convolution reads features [groups x taken] and makes [groups x multiplier]."""
    groups = equation.params["feature_group_count"]
    group = labels.atoms.fresh(groups)
    labels.feature_groups[equation.outputs[0]] = group
    labels.unify(features, labels.atoms.product([group, taken]), equation)
    multiplier = labels.atoms.fresh(len(made) // groups)
    labels.unify(made, labels.atoms.product([group, multiplier]), equation)


def pin_touched(labels: Labels, equation: Equation, touched: list[int], text: str) -> None:
    """Axes that an equation moves along are fixed, the others pass."""
    for source in equation.inputs[:1]:
        for d in touched:
            labels.pin(labels[source][d], equation, text)
    axes = labels[equation.inputs[0]]
    for output in equation.outputs:
        shape = labels.shape(output)
        labels[output] = [
            x if d not in touched and shape[d] == len(x) else np.zeros(shape[d], np.int64)
            for d, x in enumerate(axes)
        ]


def window(labels: Labels, equation: Equation) -> None:
    """Pooling: axes with a window are fixed."""
    params = equation.params
    names = ("window_dimensions", "window_strides", "base_dilation", "padding")
    spec = zip(*(params[name] for name in names), strict=True)
    touched = [
        d
        for d, (size, stride, dilation, pads) in enumerate(spec)
        if (size, stride, dilation, *pads) != (1, 1, 1, 0, 0)
    ]
    pin_touched(labels, equation, touched, "{} pools over it")


def cumulative(labels: Labels, equation: Equation) -> None:
    """Running sums depend on what comes before."""
    pin_touched(labels, equation, [equation.params["axis"]], "{} runs along it")


def sort(labels: Labels, equation: Equation) -> None:
    """Sorting mixes positions; operands sorted together have the same axes."""
    for other in equation.inputs[1:]:
        labels.unify_arrays(equation.inputs[0], other, equation)
    pin_touched(labels, equation, [equation.params["dimension"]], "{} reorders it")


def top_k(labels: Labels, equation: Equation) -> None:
    """The k winners of an axis: as in argmax, removed entries must be minus infinity."""
    (source,), (values, positions) = equation.inputs, equation.outputs
    axes = labels[source]
    ranked = equation.params.get("axis", -1) % len(axes)
    k = np.zeros(labels.shape(values)[ranked], np.int64)
    for output in (values, positions):
        labels[output] = [k if d == ranked else x for d, x in enumerate(axes)]
    hold_choice(labels, positions, axes[ranked])
    labels.ranked.append(axes[ranked])
    labels.reductions.append(Reduction(equation, ((source, ranked),), -np.inf))


def dynamic_slice(labels: Labels, equation: Equation) -> None:
    """Axes cut at a position known only at run time are fixed."""
    shape, sizes = labels.shape(equation.inputs[0]), equation.params["slice_sizes"]
    touched = [d for d, (n, m) in enumerate(zip(shape, sizes, strict=True)) if n != m]
    pin_touched(labels, equation, touched, "{} cuts it at a position known only at run time")


def dynamic_update_slice(labels: Labels, equation: Equation) -> None:
    """Whole axes go together, partly written ones are fixed."""
    operand, update = (labels[v] for v in equation.inputs[:2])
    for x, y in zip(operand, update, strict=True):
        if len(x) == len(y):
            labels.unify(x, y, equation)
        else:
            for partial in (x, y):
                labels.pin(partial, equation, "{} writes part of it at a run-time position")
    labels[equation.outputs[0]] = operand
