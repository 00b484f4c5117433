# SPDX-License-Identifier: Apache-2.0
"""Products of the tangent kernel with blocks of vectors, some examples at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.independence import batch_size
from plprune.kernels.tiles import over_tiles
from plprune.spectra.rows import Rows
from plprune.types import Apply, Inputs

_TILE_BYTES = 2**28  # Of what a tile's backward pass keeps.


class KernelProducts(NamedTuple):
    """Products with K = J J' on vectors [b c, q], whole on every device."""

    shape: tuple[int, int]  # b and c.
    dtype: Any  # At least float32; the model sees its own.
    pull: Callable[[Float[Array, "n q"]], Any]  # J' v, with leading axis q.
    push: Callable[[Any], Float[Array, "n q"]]  # J w.

    def times(self, vectors: Float[Array, "n q"]) -> Float[Array, "n q"]:
        """``K v``."""
        return self.push(self.pull(vectors))

    def singular_value(self, vector: Float[Array, " n"]) -> Float[Array, ""]:
        """``|J' v| / |v|``, whose square K's least eigenvalue never exceeds."""
        squares = (jnp.sum(p.astype(self.dtype) ** 2) for p in self.pull(vector[:, None]))
        length = jnp.maximum(jnp.linalg.norm(vector), jnp.finfo(self.dtype).tiny)
        return jnp.sqrt(sum(squares)) / length


def kernel_products(
    model: Apply,
    leaves: list[Array],
    own: Inputs,
    outputs: jax.ShapeDtypeStruct,
    rows: Rows,
    *,
    tile: int | None,
) -> KernelProducts:
    """`KernelProducts` of this device's examples `own` and those of all others.

    Only sums over parameters and whole vectors pass between devices. A product evaluates the model
    twice, on tiles of examples; memory is that of a tile's backward pass and q gradients.
    """
    tile = min(batch_size(own), tile or _tile(model, leaves, own))
    dtype = jnp.promote_types(outputs.dtype, jnp.float32)
    c = outputs.shape[1]

    def pull(vectors):
        part = rows.own(vectors).astype(outputs.dtype)
        cotangents = part.reshape(batch_size(own), c, part.shape[1])
        return rows.summed(_sum_over_tiles(pulled, (own, cotangents), tile))

    def pulled(pair):
        examples, cotangents = pair
        pullback = jax.vjp(lambda p: model(p, examples), leaves)[1]
        return jax.vmap(lambda u: pullback(u)[0], in_axes=2)(cotangents)

    def push(tangents):
        def pushed(examples):
            def one(tangent):
                return jax.jvp(lambda p: model(p, examples), (leaves,), (tangent,))[1]

            return jax.vmap(one, out_axes=2)(tangents)

        images = over_tiles(pushed, own, tile)
        return rows.gathered(images.reshape(-1, images.shape[2]).astype(dtype))

    return KernelProducts(outputs.shape, dtype, pull, push)


def _tile(model, leaves, own):
    """As many examples as `_TILE_BYTES` hold."""
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), own)
    kept = jax.eval_shape(lambda p, x: jax.vjp(lambda q: model(q, x), p)[1], leaves, one)
    # Four vectors are multiplied at a time, each with cotangents like the activations.
    numbers = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))
    numbers -= sum(p.size * p.dtype.itemsize for p in leaves)
    return max(1, _TILE_BYTES // max(4 * numbers, 1))


def _sum_over_tiles(function, inputs, tile):
    """``function`` summed over tiles of examples."""
    count, rest = divmod(batch_size(inputs), tile)
    total = None
    if rest or count == 1:
        total = function(jax.tree.map(lambda a: a[-(rest or tile) :], inputs))
    if count > 1 or (count and rest):
        tiles = jax.tree.map(lambda a: a[: count * tile].reshape(count, tile, *a.shape[1:]), inputs)
        if total is None:
            shapes = jax.eval_shape(function, jax.tree.map(lambda a: a[0], tiles))
            total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(total, part):
            return jax.tree.map(jnp.add, total, function(part)), None

        total = jax.lax.scan(add, total, tiles)[0]
    return total
