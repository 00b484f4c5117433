# SPDX-License-Identifier: Apache-2.0
"""An approximate inverse of the tangent kernel, from kernels of blocks of examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.independence import batch_size
from plprune.kernels import projected_kernel, traced_kernel
from plprune.kernels.tiles import over_tiles
from plprune.spectra.factors import least_shifted
from plprune.types import Apply, Inputs, Params

_BYTES = 2**28  # Of the roots, where blocks of _LEAST examples allow.
_LEAST, _MOST = 256, 8192
_DIRECTIONS = 16  # Combinations of outputs that stand for all, where outputs are more.


class InverseRoots(NamedTuple):
    """R with R R' close to the inverse of the kernel's blocks, the same for every output.

    At infinite width the kernel of independent outputs is that of one output, times the identity
    [Jacot 2018]: so a block of t examples and all c outputs costs t^2 numbers, not t^2 c^2.
    """

    roots: Float[Array, "b t"]  # Blocks one below the other; the last one is padded.
    num_outputs: int

    def times(self, vectors: Float[Array, "n q"]) -> Float[Array, "n q"]:
        """``R v``."""
        return self._blockwise(vectors, transposed=False)

    def transposed_times(self, vectors: Float[Array, "n q"]) -> Float[Array, "n q"]:
        """``R' v``."""
        return self._blockwise(vectors, transposed=True)

    def solve(self, vectors: Float[Array, "n q"]) -> Float[Array, "n q"]:
        """``R R' v``."""
        return self.times(self.transposed_times(vectors))

    def _blockwise(self, vectors, *, transposed):
        (size, tile), columns = self.roots.shape, vectors.shape[1]
        rows = vectors.reshape(size, self.num_outputs * columns)
        whole = size // tile * tile
        pattern = "kji,kjn->kin" if transposed else "kij,kjn->kin"

        def multiplied(roots, part):
            return jnp.einsum(pattern, roots, part, precision=jax.lax.Precision.HIGHEST)

        blocks = (a[:whole].reshape(-1, tile, a.shape[1]) for a in (self.roots, rows))
        parts = [multiplied(*blocks).reshape(whole, -1)]
        if rest := size - whole:
            parts.append(multiplied(self.roots[None, whole:, :rest], rows[None, whole:])[0])
        return jnp.concatenate(parts).reshape(vectors.shape)


def inverse_roots(
    apply: Apply, params: Params, inputs: Inputs, num_outputs: int, *, key: PRNGKeyArray
) -> InverseRoots:
    """`InverseRoots` of the mean kernel over outputs, block by block of examples.

    Blocks are as large as `_BYTES` allow. Costs c backward passes per example, or 16 random
    combinations of outputs where c is larger, and ``b t^2`` operations.
    """
    size = batch_size(inputs)
    tile = block_size(size)

    def root(part):
        kernel = _mean_kernel(apply, params, part, num_outputs, key)
        found = _inverse_root(kernel)
        return jnp.pad(found, ((0, 0), (0, tile - len(found))))

    return InverseRoots(over_tiles(root, inputs, tile), num_outputs)


def block_size(size: int) -> int:
    """Examples per block, such that `size` splits nearly evenly."""
    tile = max(_LEAST, min(_MOST, _BYTES // (4 * max(size, 1))))
    return -(-size // -(-size // tile))


def _mean_kernel(apply, params, part, num_outputs, key):
    """K's mean over equal outputs; in expectation where outputs are many."""
    if num_outputs <= _DIRECTIONS:
        return traced_kernel(apply, params, part, independent=True) / num_outputs
    signs = jax.random.rademacher(key, (_DIRECTIONS, num_outputs), jnp.float32)

    def add(total, direction):
        return total + projected_kernel(apply, params, part, direction, independent=True), None

    shape = jax.eval_shape(lambda: add(0, signs[0])[0])
    total = jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), signs)[0]
    return total / (_DIRECTIONS * num_outputs)


def _inverse_root(kernel):
    """The inverse of the transposed Cholesky factor, shifted until there is one."""
    kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    info, identity = jnp.finfo(kernel.dtype), jnp.eye(len(kernel), dtype=kernel.dtype)
    scale = jnp.maximum(jnp.max(jnp.sum(jnp.abs(kernel), axis=1)), info.tiny / info.eps)

    def factor(_, shift):
        return linalg.cholesky(kernel / scale + shift * identity, symmetrize_input=False)

    def succeeded(found):
        return jnp.isfinite(found[-1, -1])

    nothing = jnp.full_like(kernel, jnp.nan)
    first = jnp.asarray(10 * info.eps, kernel.dtype)
    found = least_shifted(factor, succeeded, nothing, first)
    root = linalg.triangular_solve(found, identity, left_side=True, lower=True, transpose_a=True)
    # Without a factor plain iterations are left, whose residuals tell the same.
    return jnp.where(succeeded(found), root / jnp.sqrt(scale), identity)
