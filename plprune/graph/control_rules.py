# SPDX-License-Identifier: Apache-2.0
"""How equations with sub-graphs label their axes."""

import numpy as np

from plprune.graph.labels import Labels
from plprune.graph.tracing import Equation, scan_counts


def call(labels: Labels, equation: Equation) -> None:
    """The body sees the operands."""
    (body,) = equation.subgraphs
    _enter(labels, body, [labels[v] for v in equation.inputs])
    for output, inner in zip(equation.outputs, body.outputs, strict=True):
        labels[output] = labels[inner]


def scan(labels: Labels, equation: Equation) -> None:
    """One walk over the body; what is carried keeps its labels from step to step."""
    (body,) = equation.subgraphs
    num_consts, num_carry = scan_counts(equation)
    fixed = num_consts + num_carry
    for v in equation.inputs[fixed:]:
        labels.pin(labels[v][0], equation, "{} steps along it")
    stepped = [labels[v][1:] for v in equation.inputs[fixed:]]
    _enter(labels, body, [labels[v] for v in equation.inputs[:fixed]] + stepped)
    for before, after in zip(body.inputs[num_consts:fixed], body.outputs, strict=False):
        labels.unify_arrays(before, after, equation)
    for k, (output, inner) in enumerate(zip(equation.outputs, body.outputs, strict=True)):
        steps = [] if k < num_carry else [np.zeros(labels.shape(output)[0], np.int64)]
        labels[output] = [*steps, *labels[inner]]


def cond(labels: Labels, equation: Equation) -> None:
    """What goes in one branch goes in all."""
    for branch in equation.subgraphs:
        _enter(labels, branch, [labels[v] for v in equation.inputs[1:]])
    first, *others = equation.subgraphs
    for k, output in enumerate(equation.outputs):
        labels[output] = labels[first.outputs[k]]
        for branch in others:
            labels.unify_arrays(output, branch.outputs[k], equation)


def _enter(labels, body, operands):
    for variable, axes in zip(body.inputs, operands, strict=True):
        labels[variable] = axes
    labels.walk(body)
