# SPDX-License-Identifier: Apache-2.0
"""Labels and facts of stacked, unstacked and tiled arrays."""

from functools import reduce

import numpy as np

from plprune.graph.fill_rules import meet
from plprune.graph.fills import Fills
from plprune.graph.labels import Labels
from plprune.graph.tracing import Equation


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


def label_tile(labels: Labels, equation: Equation) -> None:
    """Positions repeat; copies of a single position are free, since all their entries agree."""
    source, output = equation.inputs[0], equation.outputs[0]
    labels[output] = [
        np.tile(x, n) if len(x) > 1 else labels.atoms.fresh(n)
        for x, n in zip(labels[source], equation.params["reps"], strict=True)
    ]
