# SPDX-License-Identifier: Apache-2.0
"""Where activations are contracted against a parameter, whole and unchanged."""

from collections.abc import Mapping
from typing import NamedTuple

from plprune.graph.linear.origins import origins
from plprune.graph.linear.roles import contracted, is_contraction
from plprune.graph.tracing import Equation, Graph

# Moves that keep an axis's entries in order; a reshape does where only axes of size 1 come or go.
_ORDERLY = frozenset({"transpose", "squeeze", "broadcast_in_dim", "convert_element_type", "copy"})


class Reading(NamedTuple):
    """One contraction of an activation with a leaf."""

    operand: int  # Which input of the equation is the activation.
    dims: Mapping[int, int]  # Axis of the leaf -> the activation's dimension summed against it.


Readings = dict[int, tuple[int, Reading]]  # Equation index -> (leaf, reading).


def readings(graph: Graph, axes: Mapping[int, frozenset[int]]) -> Readings:
    """The contractions that read given axes of leaves.

    Multiplying the activation's dimension in each of them by a vector is the same function as
    multiplying the leaf's axis by it.

    Args:
      graph: From `trace`.
      axes: Leaf, a position among `graph.inputs`, -> its axes of interest.

    Returns:
      For every leaf all of whose uses are plain contractions over all these axes, its readings;
      nothing for a leaf with any other use, such as a slice, a loop or an output.
    """
    found = origins(graph, axes)
    result: Readings = {}
    refused = {found[v].leaf for v in graph.outputs if v in found}
    for index, equation in enumerate(graph.equations):
        used = [k for k, v in enumerate(equation.inputs) if v in found]
        if not used or all(v in found for v in equation.outputs):
            continue  # Only moved.
        leaves = {found[equation.inputs[k]].leaf for k in used}
        reading = _reading(graph, equation, used, found, axes)
        if reading is None:
            refused |= leaves
        else:
            result[index] = (*leaves, reading)
    return {index: pair for index, pair in result.items() if pair[0] not in refused}


def _reading(graph, equation: Equation, used, found, axes) -> Reading | None:
    if not is_contraction(equation) or len(used) != 1:
        return None
    if equation.name == "conv_general_dilated" and _is_grouped(equation):
        return None
    (position,) = used
    variable = equation.inputs[position]
    origin = found[variable]
    if not all(_is_orderly(graph, step) for step in origin.equations):
        return None
    full = graph.shape(graph.inputs[origin.leaf])
    dims = {}
    for own, other in zip(*_contracted(equation, position), strict=True):
        if len(origin.axes[own]) == 1:
            (axis,) = origin.axes[own]
            if graph.shape(variable)[own] == full[axis]:
                dims[axis] = other
    wanted = axes[origin.leaf]
    return Reading(1 - position, {a: dims[a] for a in wanted}) if wanted <= dims.keys() else None


def _contracted(equation, position):
    """Summed dimensions of the operand at `position` and of the other one."""
    both = contracted(equation)
    return both[position], both[1 - position]


def _is_grouped(equation):
    return equation.params["feature_group_count"] != 1 or equation.params["batch_group_count"] != 1


def _is_orderly(graph, step):
    if step.name == "reshape":
        old, new = (graph.shape(v) for v in (step.inputs[0], step.outputs[0]))
        return [n for n in old if n > 1] == [n for n in new if n > 1]
    return step.name in _ORDERLY
