# SPDX-License-Identifier: Apache-2.0
"""Equations linear in a parameter, as sums of outer products of an operand and a cotangent.

The derivative of such an equation in its parameter is ``sum_s operand[g, s, i] cotangent[g, s, o]``
over positions s, for groups g (heads, feature groups), contracted entries i and produced entries o.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from plprune.graph.tracing import Equation

_MAX_SLICES = 64  # Larger windows are unfolded by one convolution rather than slice by slice.


class Factoring(NamedTuple):
    """How to read one equation as outer products."""

    operand: Callable[[Any], Any]  # The other operand -> [g, s, i], or integer ids [g, s].
    cotangent: Callable[[Any, Any], Any]  # (the output's cotangent, operand) -> [g, s, o].
    other: int  # Position of the other operand.
    sizes: tuple[int, int, int, int]  # g, s, i, o.
    # Per dimension of the output: "s" a position, "o" produced; a bias spans exactly the latter.
    roles: str
    layout: tuple  # Equal layouts index the parameter alike, so that their positions may be joined.
    is_lookup: bool  # The operand holds row numbers: [g, s, i] is one-hot.


Shapes = Sequence[tuple[int, ...]]  # Of an equation's inputs, then of its outputs.


def dot_general(equation: Equation, position: int, shapes: Shapes) -> Factoring:
    """A product with a matrix, or with one for each entry of batch axes."""
    contract, batch = equation.params["dimension_numbers"]
    other = 1 - position
    shape = shapes[other]
    groups, inner = batch[other], contract[other]
    free = [d for d in range(len(shape)) if d not in (*groups, *inner)]
    num_free = len(shapes[position]) - len(groups) - len(inner)
    size_g, size_s, size_i = (prod(shape[d] for d in dims) for dims in (groups, free, inner))
    size_o = prod(shapes[2]) // max(size_g * size_s, 1)

    def operand(a):
        return jnp.transpose(a, (*groups, *free, *inner)).reshape(size_g, size_s, size_i)

    def cotangent(c, _):
        if position == 1:
            return c.reshape(size_g, size_s, size_o)
        return c.reshape(size_g, size_o, size_s).swapaxes(1, 2)

    order = ("s" * len(free), "o" * num_free)
    roles = "o" * len(groups) + "".join(order if position == 1 else order[::-1])
    layout = ("dot_general", contract[position], batch[position])
    return Factoring(
        operand, cotangent, other, (size_g, size_s, size_i, size_o), roles, layout, False
    )


def convolution(equation: Equation, position: int, shapes: Shapes) -> Factoring | None:
    """Windows of the image times the kernel."""
    params = equation.params
    if position != 1 or params["batch_group_count"] != 1:
        return None
    spec, groups = params["dimension_numbers"], params["feature_group_count"]
    window = tuple(shapes[1][d] for d in spec.rhs_spec[2:])
    channels = shapes[0][spec.lhs_spec[1]]
    features = shapes[2][spec.out_spec[1]]
    positions = prod(shapes[2]) // max(features, 1)

    def operand(a):
        batch, channel, *space = spec.lhs_spec
        patches = _patches(jnp.transpose(a, (batch, *space, channel)), window, params)
        patches = patches.reshape(positions, prod(window), groups, channels // groups)
        return jnp.moveaxis(patches, 2, 0).reshape(groups, positions, -1)

    def cotangent(c, _):
        space = [d for d in range(c.ndim) if d != spec.out_spec[1]]
        batch = spec.out_spec[0]
        space = [batch, *spec.out_spec[2:]]
        c = jnp.transpose(c, (*space, spec.out_spec[1]))
        return c.reshape(positions, groups, -1).swapaxes(0, 1)

    sizes = (groups, positions, prod(window) * channels // groups, features // groups)
    roles = "".join("o" if d == spec.out_spec[1] else "s" for d in range(len(shapes[2])))
    layout = ("conv", tuple(spec.rhs_spec), groups, window)
    return Factoring(operand, cotangent, 0, sizes, roles, layout, False)


def _patches(a, window, params):
    """Windows of ``a`` [n, *space, c] as [n, *output space, *window, c]."""
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    if sum(window) > _MAX_SLICES:
        flat = lax.conv_general_dilated_patches(
            jnp.moveaxis(a, -1, 1), window, strides, params["padding"], params["lhs_dilation"],
            dilation, precision=lax.Precision.HIGHEST,
        )  # fmt: skip
        split = flat.reshape(a.shape[0], a.shape[-1], *window, *flat.shape[2:])
        inner = range(1, 2 + len(window))  # Channels, then the window: to the end, in turn.
        return jnp.moveaxis(split, inner, [-1, *range(-1 - len(window), -1)])
    padding = [
        (low, high, inner - 1)
        for (low, high), inner in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    a = lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
    # Without it the compiler would compute the padded array anew, and compile it, for every slice.
    a = lax.optimization_barrier(a)
    # One axis after the other takes a sum of window sizes of slices instead of their product, and
    # with the channels last each of them is copied in rows.
    for axis, (k, d, s) in enumerate(zip(window, dilation, strides, strict=True), start=1):
        count = (a.shape[axis] - (k - 1) * d - 1) // s + 1
        starts = [offset * d for offset in range(k)]
        slices = [lax.slice_in_dim(a, m, m + (count - 1) * s + 1, s, axis) for m in starts]
        a = jnp.stack(slices, -2)
    return a


def lookup(equation: Equation, position: int, shapes: Shapes) -> Factoring | None:
    """Rows of a table at integer positions: an embedding.

    Under `vmap` a lookup by one number keeps the table's first axis, of size 1, and names a start
    along the axes that it takes whole as well, which can only be 0.
    """
    params, numbers = equation.params, equation.params["dimension_numbers"]
    table, indices, out = shapes
    rows, named = len(indices) - 1, tuple(map(int, numbers.start_index_map))
    plain = (
        position == 0
        and 0 in named
        and tuple(numbers.collapsed_slice_dims) in ((), (0,))
        and not numbers.operand_batching_dims
        and tuple(numbers.offset_dims) == tuple(range(rows, len(out)))
        and tuple(params["slice_sizes"]) == (1, *table[1:])
        and indices[-1:] == (len(named),)
    )
    if not plain:
        return None
    mode, positions = params["mode"], prod(indices[:-1])
    fills = mode == lax.GatherScatterMode.FILL_OR_DROP
    room = [table[0] if d == 0 else 1 for d in named]  # How many starts each row number may take.

    def wide(index):
        """Row numbers of a dtype that can count all rows."""
        return index.astype(jnp.promote_types(index.dtype, jnp.int32))

    def operand(index):
        row = wide(index)[..., named.index(0)]
        return jnp.clip(row, 0, table[0] - 1).reshape(1, positions)

    def cotangent(c, index):
        c, index = c.reshape(1, positions, -1), wide(index)
        ends = jnp.broadcast_to(jnp.array(room), index.shape)
        inside = jnp.all((index >= 0) & (index < ends), -1).reshape(1, positions, 1)
        return jnp.where(inside, c, 0) if fills else c

    sizes = (1, positions, table[0], prod(table[1:]))
    produced = len(table) - 1
    roles = "s" * (len(out) - produced) + "o" * produced
    return Factoring(operand, cotangent, 1, sizes, roles, ("gather",), True)


def one_hot_rows(ids: jax.Array, num_rows: int, dtype: Any) -> jax.Array:
    """Row numbers [..., g, s] as the operand [..., g, s, i] that they stand for."""
    return jax.nn.one_hot(ids, num_rows, dtype=dtype)
