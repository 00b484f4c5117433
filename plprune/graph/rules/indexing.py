# SPDX-License-Identifier: Apache-2.0
"""Positions of axes picked out, at places that the function fixes or that are known at run time.

    b:f32[3,2] = gather[... slice_sizes=(3, 1)] a:f32[3,4] [[2], [0]]

* label: positions of b's last axis are positions 2 and 0 of a's, as the indices are fixed; run-time
  indices would pin a's axis. The first axis, taken whole, passes.
* fill: what is known of a stays; rows beyond the end hold the filler.
* resize: 2 and 0 get the numbers that they have among the positions left.
* follow: a batch along the first axis goes on into b; along an axis that is picked from it is lost.
* linear: rows of a table are outer products of one-hot vectors.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from plprune.graph.entries import Linear, Primitive
from plprune.graph.following.combining import combined
from plprune.graph.following.walk import Value, Walk, frozen
from plprune.graph.rules import factors
from plprune.graph.rules.slicing import resize_windows
from plprune.graph.shrinking.fills import Fill, Fills
from plprune.graph.shrinking.known import constant_sign, entries
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing, new_positions
from plprune.graph.tracing import Equation, Variable


class Pick(NamedTuple):
    """A gather that takes fixed positions of one axis and the others whole."""

    axis: int  # Of the operand.
    positions: np.ndarray  # In the operand's full numbering.
    place: int  # The output's axis along which they lie.


def label_gather(labels: Labels, equation: Equation) -> None:
    """Axes taken whole pass; fixed positions are selected, others pin the axis that they index."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    source, indices = equation.inputs
    output, axes = equation.outputs[0], labels[source]
    pick = _pick(labels, equation)
    paired, kept = numbers.operand_batching_dims, _whole_dims(numbers, len(axes))
    for d, (x, size) in enumerate(zip(axes, sizes, strict=True)):
        # A window as long as its axis begins at 0, whatever the row number says of it.
        looked_up = d not in kept or size != len(x)
        if looked_up and d not in paired and pick is None:
            labels.pin(x, equation, "{} looks up positions of it")
    for d, e in zip(paired, numbers.start_indices_batching_dims, strict=True):
        labels.unify(axes[d], labels[indices][e], equation)
    out = [None] * len(labels.shape(output))
    for position, d in zip(numbers.offset_dims, kept, strict=True):
        full = sizes[d] == len(axes[d])
        out[position] = axes[d] if full else np.zeros(sizes[d], np.int64)
    batch = iter(labels[indices][:-1])
    out = [next(batch) if x is None else x for x in out]
    if pick is not None:
        labels.picks[output] = pick
        out[pick.place] = axes[pick.axis][pick.positions]
    labels[output] = out


def fill_gather(fills: Fills, equation: Equation) -> None:
    """Axes taken whole or by fixed positions keep their facts."""
    numbers, output = equation.params["dimension_numbers"], equation.outputs[0]
    whole, axes, sign = fills[equation.inputs[0]]
    result = list(fills.unknown(output).axes)
    for position, d in zip(numbers.offset_dims, _whole_dims(numbers, len(axes)), strict=True):
        result[position] = axes[d]
    if output in fills.labels.picks:
        pick = fills.labels.picks[output]
        result[pick.place] = axes[pick.axis]
    filler = _filler(fills, equation)
    if filler is not None:  # Rows beyond the end hold it everywhere.
        whole = whole if whole == filler else None
        result = [{v: a for v, a in x.items() if v == filler} for x in result]
        sign = min(sign, constant_sign(filler))
    fills[output] = Fill(whole, tuple(result), sign)


def _filler(fills, equation):
    """The number that a gather puts where indices point beyond the end, if it puts one.

    What is not a number there makes the masked and the shrunk function undefined alike.
    """
    params, source = equation.params, equation.inputs[0]
    fixed = equation.outputs[0] in fills.labels.picks
    if fixed or params["mode"] != GatherScatterMode.FILL_OR_DROP:
        return None
    is_exact = not jnp.issubdtype(fills.graph.avals[source].dtype, jnp.inexact)
    value = params["fill_value"]
    if value is None or np.isnan(value):
        return -math.inf if is_exact else None  # The largest or smallest integer.
    return float(np.real(value))


def _whole_dims(numbers, rank: int) -> list[int]:
    """Dimensions of a gather's operand that its windows keep, in order."""
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    return [d for d in range(rank) if d not in gone]


def _pick(labels, equation) -> Pick | None:
    """The selection that a gather is, where its indices are fixed and lie along one axis."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    source, indices = equation.inputs
    shape = labels.shape(indices)
    own = numbers.start_index_map
    if numbers.collapsed_slice_dims != own or len(own) != 1 or numbers.operand_batching_dims:
        return None
    (axis,) = own
    full = labels.shape(source)
    whole = all(size == full[d] for d, size in enumerate(sizes) if d != axis)
    positions = _fixed(labels, indices, {}) if whole and shape[-1] == 1 else None
    if positions is None or sum(n > 1 for n in shape) > 1 or positions.size == 0:
        return None
    if positions.min() < 0 or positions.max() >= full[axis]:
        return None  # What is read there depends on the gather's mode.
    rank = len(labels.shape(equation.outputs[0]))
    places = [d for d in range(rank) if d not in numbers.offset_dims]
    if not places:
        return None
    longest = max(range(len(places)), key=lambda k: shape[k])
    return Pick(axis, positions.ravel(), places[longest])


def _fixed(labels: Labels, variable: Variable, known: dict) -> np.ndarray | None:
    """The value of an array that depends on no argument and takes a few plain steps to find."""
    if variable not in known:
        known[variable] = _value(labels, variable, known)
    return known[variable]


def _value(labels, variable, known):
    if variable in labels.graph.constants:
        return entries(labels.graph.constants[variable])
    equation = labels.makers.get(variable)
    if equation is None:
        return None
    step = _STEPS.get(equation.name)
    if step is None or labels.primitives.unread(equation):
        return None
    operands = [_fixed(labels, v, known) for v in equation.inputs]
    if any(x is None for x in operands):
        return None
    return step(equation.params, *operands)


def _broadcast(params, operand):
    expanded = [1] * len(params["shape"])
    for size, d in zip(operand.shape, params["broadcast_dimensions"], strict=True):
        expanded[d] = size
    return np.broadcast_to(operand.reshape(expanded), params["shape"])


def _iota(params):
    along = [-1 if d == params["dimension"] else 1 for d in range(len(params["shape"]))]
    values = np.arange(params["shape"][params["dimension"]], dtype=params["dtype"])
    return np.broadcast_to(values.reshape(along), params["shape"])


# What JAX does with indices before it looks them up, and the usual ways to write them down.
_STEPS: dict[str, Callable[..., np.ndarray]] = {
    "lt": lambda _, x, y: x < y,
    "add": lambda _, x, y: x + y,
    "sub": lambda _, x, y: x - y,
    "mul": lambda _, x, y: x * y,
    "select_n": lambda _, which, *cases: np.choose(which.astype(int), cases),
    "convert_element_type": lambda params, x: x.astype(params["new_dtype"]),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x: x.reshape(params["new_sizes"]),
    "squeeze": lambda params, x: np.squeeze(x, params["dimensions"]),
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "concatenate": lambda params, *parts: np.concatenate(parts, params["dimension"]),
    "iota": _iota,
}


def resize_gather(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Fixed positions are renumbered; otherwise windows are cut."""
    pick = resizing.labels.picks.get(equation.outputs[0])
    if pick is None:
        return resize_windows(resizing, equation, values)
    kept = resizing.axes(equation.inputs[0])[pick.axis]
    positions = new_positions(kept, pick.positions[kept[pick.positions]])
    taken = jnp.take(values[0], positions, axis=pick.axis, mode="clip")
    before = sum(d < pick.place for d in equation.params["dimension_numbers"].offset_dims)
    shape = resizing.shape(equation.outputs[0])  # More axes of size 1, perhaps.
    return [jnp.moveaxis(taken, pick.axis, before).reshape(shape)]


def follow_gather(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are taken whole go over to the result, and so do those of the row numbers."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, rows = (walk.shape(v) for v in equation.inputs)
    rank = len(walk.shape(equation.outputs[0]))
    free = [d for d in range(rank) if d not in numbers.offset_dims]
    part = {int(d): k for k, d in enumerate(numbers.start_index_map)}  # Of the row numbers.
    own: list = [("picked", part.get(d)) for d in range(len(operand))]
    kept = _whole_dims(numbers, len(operand))
    for d, place in zip(kept, numbers.offset_dims, strict=True):
        # A row number along an axis that is taken whole is zero, or out of bounds for all of it.
        own[d] = int(place) if sizes[d] == operand[d] else ("cut", sizes[d], part.get(d))
    for d, e in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        own[d] = free[e]
    whole = tuple(part[d] for d in kept if d in part and sizes[d] == operand[d] > 1)
    rest = {name: equation.params.get(name) for name in ("mode", "fill_value")}
    roles = [own, [*free, ("index",)][: len(rows)]]
    return combined(walk, equation, values, roles, how="picks along", params=(whole, frozen(rest)))


ENTRIES = {
    "gather": Primitive(
        label_gather,
        fill_gather,
        resize_gather,
        follow_gather,
        reads="dimension_numbers slice_sizes mode fill_value",
        linear=Linear(factors=factors.lookup),
        rounds=False,
    ),
}
