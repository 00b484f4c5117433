"""Both ends of the spectrum of a dense symmetric positive semidefinite matrix."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class ExtremePairs(NamedTuple):
    """The k smallest eigenpairs and the largest one, with what is known of their errors.

    Each value lies within its residual of an eigenvalue. The least eigenvalue lies in
    ``[lower, smallest[0]]`` and the greatest in ``[largest, upper]``, up to rounding at the ends
    that touch a value.
    """

    smallest: Float[Array, " k"]  # Ascending.
    smallest_vectors: Float[Array, "n k"]  # Orthonormal columns.
    smallest_residuals: Float[Array, " k"]  # ||A x - theta x||.
    largest: Float[Array, ""]
    largest_vector: Float[Array, " n"]
    largest_residual: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]


def extreme_eigenpairs(matrix: Float[Array, "n n"], *, num_smallest: int = 1) -> ExtremePairs:
    """The `num_smallest` lowest eigenpairs and the highest one of a symmetric matrix.

    Args:
      matrix: Symmetric [n, n]; symmetrised against rounding, which is not a check.
      num_smallest: How many of the lowest pairs, 1 <= num_smallest <= n. Static under jit.

    Raises:
      ValueError: a matrix that is not square, or `num_smallest` out of range.

    References:
      [Parlett 1998, ch. 4] for residual bounds.
    """
    n = matrix.shape[0]
    if matrix.shape[1] != n:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}.")
    if not 1 <= num_smallest <= n:
        raise ValueError(f"num_smallest must lie in [1, {n}], got {num_smallest}.")
    matrix = (matrix + matrix.T) / 2
    values, vectors = jnp.linalg.eigh(matrix)
    low, low_vectors = values[:num_smallest], vectors[:, :num_smallest]
    high, high_vector = values[-1], vectors[:, -1]
    low_residuals = jnp.linalg.norm(_dot(matrix, low_vectors) - low_vectors * low[None], axis=0)
    high_residual = jnp.linalg.norm(_dot(matrix, high_vector) - high_vector * high)
    scale = jnp.maximum(jnp.abs(high), jnp.abs(low[0]))
    slack = 10 * jnp.finfo(matrix.dtype).eps * scale * jnp.sqrt(jnp.asarray(n, matrix.dtype))
    return ExtremePairs(
        low, low_vectors, low_residuals, high, high_vector, high_residual,
        low[0] - slack - low_residuals[0], high + slack + high_residual,
    )  # fmt: skip
