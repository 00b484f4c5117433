# SPDX-License-Identifier: Apache-2.0
"""Loops over tiles of a batch, so that peak memory is the result plus one tile."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from plprune.independence import batch_size


def take(inputs: PyTree, start: Any, tile: int) -> PyTree:
    """Examples [start, start + tile) of every leaf."""
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, tile), inputs)


def over_tiles(function: Callable[[PyTree], PyTree], inputs: PyTree, tile: int) -> PyTree:
    """``function(inputs)`` computed `tile` examples at a time and joined along the leading axis.

    A batch that `tile` does not divide costs a second trace for its rest.
    """
    size = batch_size(inputs)
    count, rest = divmod(size, tile)
    if count <= 1 and rest == 0:
        return function(inputs)
    parts = []
    if count:
        stacked = jax.tree.map(
            lambda a: a[: count * tile].reshape(count, tile, *a.shape[1:]), inputs
        )
        mapped = jax.lax.map(function, stacked)
        parts.append(jax.tree.map(lambda a: a.reshape(count * tile, *a.shape[2:]), mapped))
    if rest:
        parts.append(function(jax.tree.map(lambda a: a[count * tile :], inputs)))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def over_pairs(
    rows: Callable[[Any], PyTree],
    columns: Callable[[Any], PyTree] | None,
    block: Callable[[PyTree, PyTree], PyTree],
    sizes: tuple[int, int],
    tile: int,
) -> PyTree:
    """The kernel [b, c, b', c'] from its blocks, one pair of tiles at a time, in place.

    A last tile that would stick out starts earlier instead and writes some entries twice. What
    `rows` returns is kept while the row tile stays the same.

    Args:
      rows: First example of a tile -> what `block` needs of its `tile` examples.
      columns: The same for the second batch; None where it is the first one: then only blocks
        on and above the diagonal are computed and their transposes filled in.
      block: ``(rows, columns) -> [tile, c, tile, c']``, or a tree of such arrays.
      sizes: b and b'.
      tile: Examples per tile, at most the smaller batch.
    """
    symmetric = columns is None
    columns = rows if symmetric else columns
    top, left = (np.minimum(np.arange(0, n, tile), n - tile) for n in sizes)
    if len(top) == len(left) == 1:
        return block(rows(0), columns(0))
    pairs = [(i, j) for i in range(len(top)) for j in range(i if symmetric else 0, len(left))]
    starts = np.array([(top[i], left[j], j == (i if symmetric else 0)) for i, j in pairs])

    def step(carry, start):
        kernel, kept = carry
        i, j, is_new = start
        kept = jax.lax.cond(is_new == 1, rows, lambda _: kept, i)
        values = block(kept, columns(j))
        kernel = jax.tree.map(partial(_write, symmetric=symmetric, i=i, j=j), kernel, values)
        return (kernel, kept), None

    first = rows(0)
    shapes = jax.eval_shape(lambda r: block(r, columns(0)), first)
    kernel = jax.tree.map(
        lambda s: jnp.zeros((sizes[0], s.shape[1], sizes[1], s.shape[3]), s.dtype), shapes
    )
    return jax.lax.scan(step, (kernel, first), jnp.asarray(starts))[0][0]


def _write(kernel, values, *, symmetric, i, j):
    """The kernel with one block filled in, and its mirror image."""
    kernel = jax.lax.dynamic_update_slice(kernel, values, (i, 0, j, 0))
    if not symmetric:
        return kernel
    mirrored = jnp.transpose(values, (2, 3, 0, 1))
    return jax.lax.dynamic_update_slice(kernel, mirrored, (j, 0, i, 0))
