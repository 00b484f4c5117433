"""The top eigenpairs of an operator on blocks of vectors, by restarted block Lanczos."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

BlockProduct = Callable[[Float[Array, "n q"]], Float[Array, "n q"]]

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_COLUMNS = 64  # Size of a Krylov space, where one wanted pair does not ask for more.
_RESTARTS = 20


class Block(NamedTuple):
    """The top Ritz pairs of a block Krylov space."""

    values: Float[Array, " q"]  # Descending.
    vectors: Float[Array, "n q"]  # Orthonormal columns.
    residuals: Float[Array, " q"]
    converged: Bool[Array, ""]


def krylov_size(num_pairs: int) -> tuple[int, int]:
    """Columns per block and blocks per Krylov space; some more columns than pairs settle ties."""
    columns = num_pairs + 3
    return columns, max(4, -(-_COLUMNS // columns))


def top_block(
    product: BlockProduct, size: int, dtype: jnp.dtype, num_pairs: int, tol: float
) -> Block:
    """The top `num_pairs` eigenpairs (and three more, less accurate) of a symmetric operator.

    Block Lanczos with full orthogonalisation, three times, restarted from the best Ritz vectors.
    A block that closes the Krylov space leaves rounding noise, which is orthogonalised like any
    other direction, so repeated eigenvalues do no harm. The first block is fixed.

    Args:
      product: Symmetric operator on [n, q].
      size: n, at least the number of columns of `krylov_size`.
      dtype: Of the vectors.
      num_pairs: How many pairs must converge.
      tol: Residual, relative to the value, at which a pair has converged.

    References:
      [Golub & Underwood 1977]; [Saad 2011, ch. 6].
    """
    columns, blocks = krylov_size(num_pairs)

    tol = max(tol, 50 * float(jnp.finfo(dtype).eps))

    def unfinished(carry):
        block, previous, count = carry
        gains = _worst(block, num_pairs) < previous  # Else rounding allows no more.
        return ~block.converged & (count < _RESTARTS) & (gains | (count < 2))

    def restart(carry):
        block, _, count = carry
        new = _ritz(product, block.vectors, blocks, num_pairs, tol)
        return new, _worst(block, num_pairs), count + 1

    start = jnp.linalg.qr(_first_block(size, columns, dtype))[0]
    nothing = jnp.zeros(columns, dtype)
    first = Block(nothing, start, nothing, jnp.zeros((), bool))
    return jax.lax.while_loop(unfinished, restart, (first, nothing[0], 0))[0]


def _worst(block, num_pairs):
    """Largest residual of the wanted pairs relative to their values."""
    scale = jnp.maximum(jnp.abs(block.values), jnp.finfo(block.values.dtype).tiny)
    return jnp.max((block.residuals / scale)[:num_pairs])


def _first_block(size, columns, dtype):
    """Directions without a pattern that a kernel could share: quadratic phases."""
    rows = jnp.arange(1, size + 1, dtype=dtype)[:, None]
    phases = jnp.sqrt(jnp.arange(2, columns + 2, dtype=dtype) + 0.5)[None]
    return jnp.cos(rows * phases + 0.7 * jnp.mod(rows, 97) ** 2)


def _ritz(product, start, blocks, num_pairs, tol):
    """Ritz pairs of the space spanned by `blocks` powers of the operator on `start`."""
    size, columns = start.shape

    def extend(carry, index):
        basis, images, block = carry
        basis = jax.lax.dynamic_update_slice(basis, block, (0, index * columns))
        image = product(block)
        images = jax.lax.dynamic_update_slice(images, image, (0, index * columns))
        return (basis, images, _orthonormal(basis, image)), None

    empty = jnp.zeros((size, blocks * columns), start.dtype)
    (basis, images, _), _ = jax.lax.scan(extend, (empty, empty, start), jnp.arange(blocks))
    small = _dot(basis.T, images)
    values, vectors = jnp.linalg.eigh((small + small.T) / 2)
    values, vectors = values[: -columns - 1 : -1], vectors[:, : -columns - 1 : -1]
    ritz = _dot(basis, vectors)
    residuals = jnp.linalg.norm(_dot(images, vectors) - ritz * values[None], axis=0)
    converged = jnp.all(residuals[:num_pairs] <= tol * jnp.abs(values[:num_pairs]))
    return Block(values, ritz, residuals, converged | ~jnp.all(jnp.isfinite(values)))


def _orthonormal(basis, block):
    """An orthonormal block orthogonal to `basis`; three passes, as noise needs one more."""
    for _ in range(3):
        block = block - _dot(basis, _dot(basis.T, block))
        block = jnp.linalg.qr(block)[0]
    return block
