# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a graph whose parameters are single layers: its scans over layers are unrolled."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util

from plprune.graph.primitives import FAMILIES
from plprune.graph.tracing import Equation, Graph, bind, evaluate, scan_counts


class Layers(NamedTuple):
    """An array that is held in pieces."""

    axes: tuple[int, ...]  # Of the whole array, ascending; the pieces do not have them.
    pieces: np.ndarray  # Of arrays, with one dimension for each of these axes.

    def whole(self) -> jax.Array:
        """The array in one piece."""
        stacked = jnp.stack(list(self.pieces.flat))
        stacked = stacked.reshape(*self.pieces.shape, *stacked.shape[1:])
        return jnp.moveaxis(stacked, range(len(self.axes)), self.axes)

    def each(self, function: Callable[[Any], Any]) -> "Layers":
        """Every piece changed alike."""
        return layers_of(self.axes, self.pieces.shape, lambda at: function(self.pieces[at]))

    def rest(self) -> list[int]:
        """Axes of the whole array that the pieces have."""
        rank = len(self.axes) + jnp.ndim(self.pieces.flat[0])
        return [d for d in range(rank) if d not in self.axes]


def layers_of(
    axes: Sequence[int], sizes: Sequence[int], piece: Callable[[tuple[int, ...]], Any]
) -> Layers:
    """`Layers` of ``piece(index)``, with an index along each of the axes."""
    pieces = np.empty(tuple(sizes), object)
    for at in np.ndindex(pieces.shape):
        pieces[at] = piece(at)
    return Layers(tuple(axes), pieces)


def evaluate_unrolled(graph: Graph, values: Sequence[Any]) -> list[Any]:
    """Flat outputs of a graph at flat inputs, of which some are `Layers`.

    A scan that steps along pieces becomes as many copies of its body, each of which sees one layer
    alone. What an equation without a rule for pieces reads is put together before.
    """
    return [_whole(x) for x in evaluate(graph, values, _apply)]


def _whole(value):
    return value.whole() if isinstance(value, Layers) else value


def _apply(equation: Equation, values: Sequence[Any]) -> list[Any]:
    # A later trace then still tells the user's lines.
    with source_info_util.user_context(equation.made_at.traceback):
        if not any(isinstance(x, Layers) for x in values):
            return bind(equation, values)
        rule = _RULES.get(equation.name)
        outputs = rule(equation, values) if rule else None
        return bind(equation, list(map(_whole, values))) if outputs is None else outputs


def _scan(equation, values):
    (body,), (consts, carried) = equation.subgraphs, scan_counts(equation)
    fixed, rows = values[:consts], values[consts + carried :]
    carry = list(map(_whole, values[consts : consts + carried]))
    if not any(isinstance(x, Layers) and 0 in x.axes for x in rows):

        def step(carry, rows):
            out = evaluate_unrolled(body, [*fixed, *carry, *rows])
            return out[:carried], out[carried:]

        options = {name: equation.params[name] for name in ("length", "reverse", "unroll")}
        carry, stacked = jax.lax.scan(step, carry, list(map(_whole, rows)), **options)
        return [*carry, *stacked]
    length = equation.params["length"]
    made = [[None] * length for _ in equation.outputs[carried:]]
    for k in range(length)[:: -1 if equation.params["reverse"] else 1]:
        out = evaluate(body, [*fixed, *carry, *(_row(x, k) for x in rows)], _apply)
        carry = list(map(_whole, out[:carried]))
        for pieces, x in zip(made, out[carried:], strict=True):
            pieces[k] = _whole(x)
    # What nothing reads is never put together.
    return [*carry, *(layers_of((0,), (length,), lambda at, x=x: x[at[0]]) for x in made)]


def _row(value, k):
    """The entries at a position of the first axis."""
    if not isinstance(value, Layers):
        return jax.lax.index_in_dim(value, k, keepdims=False)
    axes = tuple(d - 1 for d in value.axes if d > 0)
    if 0 not in value.axes:
        return Layers(axes, value.pieces).each(lambda x: jax.lax.index_in_dim(x, k, keepdims=False))
    return Layers(axes, value.pieces[k]) if axes else value.pieces[k]


def _cond(equation, values):
    def branch(body):
        return lambda: evaluate_unrolled(body, values[1:])

    return jax.lax.switch(_whole(values[0]), [branch(body) for body in equation.subgraphs])


def _elementwise(equation, values):
    """Arithmetic of one array in pieces with numbers."""
    shapes = [() if isinstance(x, Layers) else jnp.shape(x) for x in values]
    places = [k for k, x in enumerate(values) if isinstance(x, Layers)]
    if len(places) > 1 or len(equation.outputs) > 1 or any(shapes):
        return None
    (place,) = places

    def of_piece(piece):
        return bind(equation, [*values[:place], piece, *values[place + 1 :]])[0]

    return [values[place].each(of_piece)]


def _transpose(equation, values):
    (value,), order = values, equation.params["permutation"]
    axes = [d for d, old in enumerate(order) if old in value.axes]
    pieces = value.pieces.transpose([value.axes.index(order[d]) for d in axes])
    rest = value.rest()
    inner = [rest.index(old) for old in order if old in rest]
    return [Layers(tuple(axes), pieces).each(lambda x: jnp.transpose(x, inner))]


def _slice(equation, values):
    (value,) = values
    names = ("start_indices", "limit_indices", "strides")
    starts, limits, strides = (equation.params[name] for name in names)
    along = [slice(*of) for of in zip(starts, limits, strides or [1] * len(starts), strict=True)]
    pieces = value.pieces[tuple(along[d] for d in value.axes)]
    inner = tuple(along[d] for d in value.rest())
    return [Layers(value.axes, pieces).each(lambda x: x[inner])] if pieces.size else None


def _squeeze(equation, values):
    (value,), gone = values, equation.params["dimensions"]
    pieces = value.pieces[tuple(0 if d in gone else slice(None) for d in value.axes)]
    inner = tuple(k for k, d in enumerate(value.rest()) if d in gone)
    axes = tuple(d - sum(g < d for g in gone) for d in value.axes if d not in gone)
    if not axes:
        return [jnp.squeeze(pieces, inner)]
    return [Layers(axes, pieces).each(lambda x: jnp.squeeze(x, inner))]


def _reshape(equation, values):
    """Layers in groups, or groups of layers in a row."""
    (value,), sizes = values, equation.params["new_sizes"]
    piece = jnp.shape(value.pieces.flat[0])
    count = len(sizes) - len(piece)
    if value.axes != tuple(range(len(value.axes))) or tuple(sizes[count:]) != piece or count < 1:
        return None
    return [Layers(tuple(range(count)), value.pieces.reshape(sizes[:count]))]


_RULES = {
    **dict.fromkeys(FAMILIES["arithmetic"], _elementwise),
    "scan": _scan,
    "cond": _cond,
    "transpose": _transpose,
    "slice": _slice,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "sharding_constraint": lambda _, values: list(values),  # Of the stack; values stay.
}
