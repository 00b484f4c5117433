# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a labelled graph with some atoms removed.

A jaxpr bakes few shapes, and they are recomputed from the labels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.shrinking.atoms import Label, LabelVector
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Equation, Graph, Variable, bind, evaluate

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
            stays = [self.removed.isdisjoint(self.labels.atoms.of_root(x)) for x in unique.tolist()]
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
        rule = self.labels.primitives.of(equation).resize
        if rule is not None:
            return rule(self, equation, values)
        outputs = bind(equation, values)
        if shrinks_in:
            return outputs
        return [self.cut(v, x) for v, x in zip(equation.outputs, outputs, strict=True)]


def take(array: Any, positions: np.ndarray, axis: int) -> Any:
    """Entries at sorted positions; a slice where they are consecutive."""
    if len(positions) == array.shape[axis]:
        return array
    if len(positions) and positions[-1] - positions[0] + 1 == len(positions):
        return jax.lax.slice_in_dim(array, int(positions[0]), int(positions[-1]) + 1, axis=axis)
    return jnp.take(array, positions, axis=axis, mode="clip", unique_indices=True)


def new_positions(kept: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Where old positions, all of them kept, lie after the cut."""
    return (np.cumsum(kept) - 1)[old]


def with_params(equation: Equation, values: Values, **params: Any) -> list[Any]:
    """Outputs of an equation with other parameters."""
    return bind(equation._replace(params={**equation.params, **params}), values)
