"""Both ends of the spectrum of a dense symmetric positive semidefinite matrix."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.spectra.factors import cholesky_solver, is_definite, shifted_cholesky
from plprune.spectra.krylov import krylov_size, top_block

METHODS = ("auto", "eigh", "cholesky")
_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_SMALL = 512  # Below it a full eigen-decomposition is as fast.


class ExtremePairs(NamedTuple):
    """The k smallest eigenpairs and the largest one, with what is known of their errors.

    Each value lies within its residual of an eigenvalue. The least eigenvalue lies in
    ``[lower, smallest[0] + slack]`` and the greatest in ``[largest - slack, upper]``, where slack,
    max(10, sqrt n) eps lambda_max, covers the rounding of the working precision.
    """

    smallest: Float[Array, " k"]  # Ascending.
    smallest_vectors: Float[Array, "n k"]  # Orthonormal columns.
    smallest_residuals: Float[Array, " k"]  # ||A x - theta x||.
    largest: Float[Array, ""]
    largest_vector: Float[Array, " n"]
    largest_residual: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    slack: Float[Array, ""]


def extreme_eigenpairs(
    matrix: Float[Array, "n n2"], *, num_smallest: int = 1, method: str = "auto", tol: float = 1e-6
) -> ExtremePairs:
    """The `num_smallest` lowest eigenpairs and the highest one of a positive semidefinite matrix.

    "cholesky" factors the matrix, runs block Lanczos on its inverse and on itself, and certifies
    both ends by two more factorisations: ``A - lower`` and ``upper - A`` have Cholesky factors only
    if they are positive semidefinite [Higham 2002, ch. 10]. Should a certificate fail it falls back
    to "eigh". It costs n^3 operations in fast matrix products, "eigh" about 9 n^3 in slow ones.

    Args:
      matrix: Symmetric [n, n]; symmetrised against rounding, which is not a check. A kernel's
        negative eigenvalues from rounding are fine.
      num_smallest: How many of the lowest pairs, 1 <= num_smallest <= n. Static under jit.
      method: "eigh", "cholesky", or "auto": the faster by size.
      tol: Relative residual at which Lanczos stops.

    Raises:
      ValueError: a matrix that is not square, an unknown method, or `num_smallest` out of range.

    References:
      [Parlett 1998, ch. 4] for residual bounds.
    """
    n = matrix.shape[0]
    if matrix.shape[1] != n:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}.")
    if not 1 <= num_smallest <= n:
        raise ValueError(f"num_smallest must lie in [1, {n}], got {num_smallest}.")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    matrix = (matrix + matrix.T) / 2
    columns, blocks = krylov_size(num_smallest)
    if method == "auto":
        method = "eigh" if n <= max(_SMALL, 3 * columns * blocks) else "cholesky"
    if method == "eigh" or n < columns * blocks:
        return _by_eigh(matrix, num_smallest)
    pairs, is_certified = _by_cholesky(matrix, num_smallest, tol)
    return jax.lax.cond(
        is_certified | ~jnp.all(jnp.isfinite(matrix)),
        lambda _: pairs,
        lambda a: _by_eigh(a, num_smallest),
        matrix,
    )


def _by_eigh(matrix, k):
    values, vectors = jnp.linalg.eigh(matrix)
    return _pairs(matrix, values[:k], vectors[:, :k], values[-1], vectors[:, -1])


def _by_cholesky(matrix, k, tol):
    """Pairs and whether both ends are certified."""
    n, dtype = len(matrix), matrix.dtype
    top = top_block(lambda x: _dot(matrix, x), n, dtype, 1, tol)
    factor = shifted_cholesky(matrix, jnp.maximum(top.values[0], jnp.finfo(dtype).tiny))
    low = top_block(cholesky_solver(factor), n, dtype, k, tol)
    # The inverse's Ritz values carry the shift; those of the matrix itself do not.
    projected = _dot(low.vectors.T, _dot(matrix, low.vectors))
    values, rotation = jnp.linalg.eigh((projected + projected.T) / 2)
    vectors = _dot(low.vectors, rotation)
    pairs = _pairs(matrix, values[:k], vectors[:, :k], top.values[0], top.vectors[:, 0])
    below = is_definite(matrix, -(pairs.lower + pairs.slack))
    above = is_definite(-matrix, pairs.upper - pairs.slack)
    # Eigenvalues at the level of rounding are as good as zero whatever their certificate says.
    is_noise = pairs.smallest[0] <= pairs.slack
    return pairs, (below | is_noise) & above


def _pairs(matrix, low, low_vectors, high, high_vector):
    """The pairs with residuals, bounds and the slack of rounding."""
    n, eps = len(matrix), jnp.finfo(matrix.dtype).eps
    low_residuals = jnp.linalg.norm(_dot(matrix, low_vectors) - low_vectors * low[None], axis=0)
    high_residual = jnp.linalg.norm(_dot(matrix, high_vector) - high_vector * high)
    slack = max(10.0, n**0.5) * eps * jnp.maximum(jnp.abs(high), jnp.abs(low[0]))
    lower, upper = low[0] - low_residuals[0] - 2 * slack, high + high_residual + 2 * slack
    return ExtremePairs(
        low, low_vectors, low_residuals, high, high_vector, high_residual, lower, upper, slack
    )
