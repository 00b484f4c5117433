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
    read: Callable[[Any], PyTree],
    block: Callable[[PyTree, PyTree], PyTree],
    sizes: tuple[int, int],
    tile: int,
    *,
    symmetric: bool,
) -> PyTree:
    """The kernel [b, c, b', c'] from its blocks, one pair of tiles at a time, in place.

    A last tile that would stick out starts earlier instead and writes some entries twice. The loop
    holds one copy of what `read` computes, which for a deep model is most of what there is to
    compile: every step reads one tile, and keeps it where it is a new row's.

    Args:
      read: First example of a tile -> what `block` needs of its `tile` examples. The second batch
        follows the first one.
      block: ``(rows, columns) -> [tile, c, tile, c']``, or a tree of such arrays.
      sizes: b and b'.
      tile: Examples per tile, at most the smaller batch.
      symmetric: The two batches are one: then only blocks on and above the diagonal are computed
        and their transposes filled in.
    """
    top, left = (np.minimum(np.arange(0, n, tile), n - tile) for n in sizes)
    if len(top) == len(left) == 1:
        rows = read(0)
        return block(rows, rows if symmetric else read(sizes[0]))

    def step(carry, task):
        kernel, kept = carry
        start, i, j, is_row, writes = task
        new = read(start)
        kept = jax.tree.map(lambda a, b: jnp.where(is_row, a, b), new, kept)

        def filled(kernel):
            values = block(kept, new)
            return jax.tree.map(partial(_write, symmetric=symmetric, i=i, j=j), kernel, values)

        # Where the batches are one, each row begins with its own block on the diagonal.
        return (
            filled(kernel) if symmetric else jax.lax.cond(writes, filled, _same, kernel),
            kept,
        ), None

    shapes = jax.eval_shape(read, 0)
    blocks = jax.eval_shape(block, shapes, shapes)
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    kernel = jax.tree.map(
        lambda s: jnp.zeros((sizes[0], s.shape[1], sizes[1], s.shape[3]), s.dtype), blocks
    )
    tasks = jax.tree.map(jnp.asarray, _tasks(top, left, sizes[0], symmetric))
    return jax.lax.scan(step, (kernel, nothing), tasks)[0][0]


def _tasks(top, left, size, symmetric):
    """Per step: first example to read; the block's place; whether a row begins; what is written."""
    tasks = []
    for k, i in enumerate(top):
        if symmetric:
            tasks += [(j, i, j, j == i, True) for j in left[k:]]
        else:
            tasks += [(i, i, 0, True, False), *((size + j, i, j, False, True) for j in left)]
    *places, is_row, writes = zip(*tasks, strict=True)
    return *map(np.array, places), np.array(is_row), np.array(writes)


def _same(kernel):
    return kernel


def _write(kernel, values, *, symmetric, i, j):
    """The kernel with one block filled in, and its mirror image."""
    kernel = jax.lax.dynamic_update_slice(kernel, values, (i, 0, j, 0))
    if not symmetric:
        return kernel
    mirrored = jnp.transpose(values, (2, 3, 0, 1))
    return jax.lax.dynamic_update_slice(kernel, mirrored, (j, 0, i, 0))
