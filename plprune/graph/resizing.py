# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a labelled graph with some atoms removed.

A jaxpr bakes few shapes, and they are recomputed from the labels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.atoms import Label, LabelVector
from plprune.graph.derivatives import resized_call
from plprune.graph.label_rules import pad_sources, slices
from plprune.graph.labels import Labels
from plprune.graph.tracing import Equation, Graph, Variable, bind, evaluate, scan_counts

Values = Sequence[Any]


class Resizing:
    """The sizes of every axis once some atoms are removed."""

    def __init__(self, labels: Labels, removed: frozenset[Label]):
        """Sizes are worked out on demand."""
        self.labels, self.removed = labels, removed
        self._kept: dict[int, tuple[LabelVector, np.ndarray]] = {}

    def kept(self, vector: LabelVector) -> np.ndarray:
        """True at the positions that stay."""
        if id(vector) not in self._kept:
            unique, inverse = np.unique(self.labels.atoms.roots(vector), return_inverse=True)
            stays = [self.removed.isdisjoint(self.labels.atoms.basic(x)) for x in unique.tolist()]
            self._kept[id(vector)] = (vector, np.array(stays, bool)[inverse.reshape(-1)])
        return self._kept[id(vector)][1]

    def axes(self, variable: Variable) -> list[np.ndarray]:
        """Positions that stay, per dimension."""
        return [self.kept(vector) for vector in self.labels[variable]]

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """The new shape."""
        return tuple(int(kept.sum()) for kept in self.axes(variable))

    def changed(self, variable: Variable) -> bool:
        """Whether a variable shrinks."""
        return any(not kept.all() for kept in self.axes(variable))

    def cut(self, variable: Variable, value: Any) -> Any:
        """The kept entries of a full array."""
        for d, kept in enumerate(self.axes(variable)):
            value = take(value, np.flatnonzero(kept), d)
        return value

    def evaluate(self, graph: Graph, values: Values) -> list[Any]:
        """Outputs of a (sub-)graph at shrunk inputs."""
        return evaluate(graph, values, self._apply, self._constant)

    def _constant(self, variable, value):
        return self.cut(variable, jnp.asarray(value)) if self.changed(variable) else value

    def _apply(self, equation: Equation, values: Values) -> list[Any]:
        shrinks_in = any(map(self.changed, equation.inputs))
        if not shrinks_in and not any(map(self.changed, equation.outputs)):
            return bind(equation, values)
        if equation.name in ("broadcast_in_dim", "tile"):  # Never build the full array.
            return _RULES[equation.name](self, equation, values)
        if not shrinks_in:
            pairs = zip(equation.outputs, bind(equation, values), strict=True)
            return [self.cut(v, x) for v, x in pairs]
        return _RULES.get(equation.name, _same_parameters)(self, equation, values)


def take(array: Any, positions: np.ndarray, axis: int) -> Any:
    """Entries at sorted positions; a slice where they are consecutive."""
    if len(positions) == array.shape[axis]:
        return array
    if len(positions) and positions[-1] - positions[0] + 1 == len(positions):
        return jax.lax.slice_in_dim(array, int(positions[0]), int(positions[-1]) + 1, axis=axis)
    return jnp.take(array, positions, axis=axis, mode="clip", unique_indices=True)


def _same_parameters(resizing, equation, values):
    del resizing
    return bind(equation, values)


def _with_params(equation, values, **params):
    return bind(equation._replace(params={**equation.params, **params}), values)


def _broadcast(resizing, equation, values):
    dims = equation.params["broadcast_dimensions"]
    return [jax.lax.broadcast_in_dim(values[0], resizing.shape(equation.outputs[0]), dims)]


def _reshape(resizing, equation, values):
    return [jnp.reshape(values[0], resizing.shape(equation.outputs[0]))]


def _slice(resizing, equation, values):
    (result,) = values
    axes = resizing.axes(equation.inputs[0])
    for d, (kept, selected) in enumerate(zip(axes, slices(equation), strict=True)):
        wanted = np.arange(len(kept))[selected]
        result = take(result, new_positions(kept, wanted[kept[wanted]]), d)
    return [result]


def new_positions(kept: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Where old positions, all of them kept, lie after the cut."""
    return (np.cumsum(kept) - 1)[old]


def _split(resizing, equation, values):
    axis = equation.params["axis"]
    sizes = tuple(resizing.shape(output)[axis] for output in equation.outputs)
    return _with_params(equation, values, sizes=sizes)


def _tile(resizing, equation, values):
    """Copies of a single position become as many as are left."""
    old, new = (resizing.shape(v) for v in (equation.inputs[0], equation.outputs[0]))
    return [jnp.tile(values[0], [n // m for m, n in zip(old, new, strict=True)])]


def _pad(resizing, equation, values):
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
        sources = pad_sources(resizing.labels, equation)[d][after[d]]
        size = int(before[d].sum())
        positions = np.where(sources < 0, size, new_positions(before[d], sources))
        result = jnp.take(result, positions, axis=d, mode="clip")
    return [result]


def _convolution(resizing, equation, values):
    groups = resizing.labels.feature_groups.get(equation.outputs[0])
    count = 1 if groups is None else int(resizing.kept(groups).sum())
    return _with_params(equation, values, feature_group_count=count)


def _gather(resizing, equation, values):
    """Fixed positions are renumbered; otherwise windows are cut."""
    pick = resizing.labels.picks.get(equation.outputs[0])
    if pick is None:
        return _whole_slices(resizing, equation, values)
    kept = resizing.axes(equation.inputs[0])[pick.axis]
    positions = new_positions(kept, pick.positions[kept[pick.positions]])
    taken = jnp.take(values[0], positions, axis=pick.axis, mode="clip")
    before = sum(d < pick.place for d in equation.params["dimension_numbers"].offset_dims)
    shape = resizing.shape(equation.outputs[0])  # More axes of size 1, perhaps.
    return [jnp.moveaxis(taken, pick.axis, before).reshape(shape)]


def _whole_slices(resizing, equation, values):
    """Slice sizes that took an axis whole take what is left of it."""
    axes = resizing.axes(equation.inputs[0])
    sizes = [
        int(kept.sum()) if size == len(kept) else size
        for kept, size in zip(axes, equation.params["slice_sizes"], strict=True)
    ]
    return _with_params(equation, values, slice_sizes=tuple(sizes))


def _winner(resizing, equation, values):
    """Positions are reported in the numbering of the full array."""
    (axis,) = equation.params["axes"]
    kept = np.flatnonzero(resizing.axes(equation.inputs[0])[axis])
    (winner,) = bind(equation, values)
    return [jnp.asarray(kept, winner.dtype)[winner]]


def _winners(resizing, equation, values):
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


def _scan(resizing, equation, values):
    params, (body,) = equation.params, equation.subgraphs
    num_consts, num_carry = scan_counts(equation)
    consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]

    def step(carry, stepped):
        out = resizing.evaluate(body, [*consts, *carry, *stepped])
        return tuple(out[:num_carry]), tuple(out[num_carry:])

    carry, stacked = jax.lax.scan(
        step,
        tuple(carry),
        tuple(values[num_consts + num_carry :]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *stacked]


def _cond(resizing, equation, values):
    def branch(body):
        return lambda *operands: tuple(resizing.evaluate(body, operands))

    return list(jax.lax.switch(values[0], [branch(b) for b in equation.subgraphs], *values[1:]))


def _call(resizing, equation, values):
    (body,) = equation.subgraphs

    def small(*arguments):
        return tuple(resizing.evaluate(body, arguments))

    return resized_call(resizing.labels.graph, equation, small, values)


_RULES: dict[str, Callable[[Resizing, Equation, Values], list[Any]]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "tile": _tile,
    "conv_general_dilated": _convolution,
    "gather": _gather,
    "dynamic_slice": _whole_slices,
    "argmax": _winner,
    "argmin": _winner,
    "top_k": _winners,
    "scan": _scan,
    "cond": _cond,
    "custom_jvp_call": _call,
    "custom_vjp_call": _call,
}
