# SPDX-License-Identifier: Apache-2.0
"""Both ends of the spectrum of a dense symmetric positive semidefinite matrix."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from plprune.spectra.certificates import is_lowest
from plprune.spectra.certified import (
    STEPS,
    ExtremePairs,
    extreme_pairs,
    first_block,
    highest_block,
    in_units,
    solved_block,
)
from plprune.spectra.davidson import Block, krylov_basis, space_size
from plprune.spectra.factors import (
    blocked_cholesky,
    cholesky_solver,
    shifted_cholesky,
)
from plprune.spectra.scaling import power_of_two, widened

METHODS = ("auto", "eigh", "cholesky", "krylov")
_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
# Up to these sizes a full eigen-decomposition: to the first it is as fast as a Krylov space, to the
# second hardly slower than certified iterations, which take eight times as long to compile.
_SMALL, _SMALL_CERTIFIED = 512, 640
# The second on CUDA: certified iterations at 2048 in float64 took 46 s to compile on an H200 and 44
# ms to run, cuSOLVER's eigenvalues .1 s and 27 ms. Measured on that one card, at that size.
_SMALL_CUDA = 4096
_KRYLOV = 6  # Blocks of a space that is not refined.
_STEPS_SINGLE = 40  # Of a solver in float32, which either helps at once or not at all.


def extreme_eigenpairs(
    matrix: Num[Array, "n n2"], *, num_smallest: int = 1, method: str = "auto", tol: float = 1e-6
) -> ExtremePairs:
    """The `num_smallest` lowest eigenpairs and the highest one of a positive semidefinite matrix.

    "cholesky" finds both ends by block Davidson iterations, the lower one preconditioned by a
    Cholesky factor, and certifies both by one more factor each (see `is_lowest`). These factors
    are taken in float32 where its rounding allows, else in the matrix's dtype; residuals, values
    and bounds are always of that dtype. Should a certificate fail the answer is that of "eigh". It
    costs n^3 operations in fast matrix products, "eigh" about 9 n^3 in slow ones.

    "krylov" stops after one block Krylov space for each end, of the matrix and of its inverse, and
    certifies nothing: faster again, the mean of the lowest values of a kernel to about a hundredth,
    its derivative to about a tenth, since vectors err by the root of what values do.

    Args:
      matrix: Symmetric [n, n] up to rounding, which is not checked. A kernel's negative
        eigenvalues from rounding are fine. Integers and fewer than 32 bits are raised to float32.
        It is scaled by a power of two first, so that no scale is too large or too small.
      num_smallest: How many of the lowest pairs, 1 <= num_smallest <= n. Static under jit.
      method: "eigh", "cholesky", or "auto": the faster of the two by size and device, on CUDA
        "eigh" up to 4,096 rows, as measured on one card. "krylov" is "eigh" too where that is
        faster.
      tol: Relative error of the wanted values at which iterations of "cholesky" stop; their
        vectors' relative residuals are then of the order of its root.

    Raises:
      ValueError: a matrix that is not square, empty or not real, an unknown method, or
        `num_smallest` out of range.

    References:
      [Parlett 1998, ch. 4 and 11] for bounds from residuals.
    """
    _check(matrix, num_smallest, method)
    matrix = widened("matrix", matrix)
    # Near 1 no square of a residual over- or underflows, and nothing depends on the scale.
    unit = power_of_two(matrix)
    return in_units(_solve(matrix / unit, num_smallest, method, tol), unit)


def _check(matrix, num_smallest, method):
    n = len(matrix)
    if matrix.shape != (n, n):
        raise ValueError(f"matrix must be square, got shape {matrix.shape}.")
    if n == 0:
        raise ValueError("matrix must have at least one row, got none.")
    if not 1 <= num_smallest <= n:
        raise ValueError(f"num_smallest must lie in [1, {n}], got {num_smallest}.")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")


def _solve(matrix, num_smallest, method, tol):
    """The pairs of a matrix whose largest entry is near 1."""
    n = len(matrix)
    columns, blocks = space_size(num_smallest)
    blocks = _KRYLOV if method == "krylov" else blocks
    least = _SMALL if method == "krylov" else _SMALL_CERTIFIED
    is_small = method != "cholesky" and n <= max(least, 3 * columns * blocks)
    if method == "eigh" or is_small or n < columns * blocks:
        return _by_eigh(matrix, num_smallest)
    if method == "krylov":
        return _by_krylov(matrix, num_smallest)
    if method == "auto" and n <= _SMALL_CUDA:
        # Only the branch of the device that the program is compiled for stays in it.
        return jax.lax.platform_dependent(
            matrix,
            cuda=partial(_by_eigh, k=num_smallest),
            default=partial(_certified, k=num_smallest, tol=tol),
        )
    return _certified(matrix, num_smallest, tol)


def _certified(matrix, k, tol):
    """The pairs by certified iterations, or by "eigh" where a certificate fails."""
    pairs, is_certified = _by_cholesky(matrix, k, tol)
    return jax.lax.cond(
        is_certified | ~jnp.isfinite(pairs.smallest[0] + pairs.largest),
        lambda _: pairs,
        lambda a: _by_eigh(a, k),
        matrix,
    )


def _by_eigh(matrix, k):
    values, vectors = jnp.linalg.eigh(matrix)
    low, high = values[:k], values[-1]
    low_residuals = _dot(matrix, vectors[:, :k]) - vectors[:, :k] * low[None]
    high_residuals = _dot(matrix, vectors[:, -1:]) - vectors[:, -1:] * high
    bottom = Block(low, vectors[:, :k], low_residuals, jnp.ones((), bool))
    top = Block(-values[-1:], vectors[:, -1:], -high_residuals, jnp.ones((), bool))
    return extreme_pairs(bottom, top, k, factorised=False)


def _by_cholesky(matrix, k, tol):
    """Pairs and whether both ends are certified."""
    top = highest_block(partial(_dot, matrix), len(matrix), matrix.dtype, tol=tol)
    high = jnp.maximum(-top.values[0], jnp.finfo(matrix.dtype).tiny)
    bottom = _bottom(matrix, k, tol, high)
    pairs = extreme_pairs(bottom, top, k)
    # Eigenvalues at the level of rounding are as good as zero whatever their certificate says.
    is_noise = pairs.smallest[0] <= pairs.slack
    is_certified = is_lowest(matrix, -1, top, high) & (
        is_lowest(matrix, 1, bottom, high) | is_noise
    )
    return pairs, is_certified


def _by_krylov(matrix, k):
    """Ritz pairs of one space for each end, as they come."""
    size, dtype = len(matrix), matrix.dtype
    first = first_block(size, space_size(1)[0], dtype)
    top = _ritz(-matrix, krylov_basis(partial(_dot, matrix), first, _KRYLOV))
    high = jnp.maximum(-top.values[0], jnp.finfo(dtype).tiny)
    solve = cholesky_solver(shifted_cholesky(matrix, 1 / high, dtype))
    first = first_block(size, space_size(k)[0], dtype)
    bottom = _ritz(matrix, krylov_basis(solve, first, _KRYLOV))
    unknown = jnp.full((), jnp.inf, dtype)
    return extreme_pairs(bottom, top, k)._replace(lower_error=unknown, upper_error=unknown)


def _ritz(matrix, basis):
    """All Ritz pairs of a space, whose directions need not be orthonormal."""
    basis = jnp.linalg.qr(basis)[0]
    images = _dot(matrix, basis)
    small = _dot(basis.T, images)
    values, rotation = jnp.linalg.eigh((small + small.T) / 2)
    vectors = _dot(basis, rotation)
    residuals = _dot(images, rotation) - vectors * values[None]
    return Block(values, vectors, residuals, jnp.zeros((), bool))


def _bottom(matrix, k, tol, high):
    """The lowest pairs by a solver in float32, or in the matrix's own dtype where that fails."""
    dtype, single = matrix.dtype, jnp.dtype(jnp.float32)
    search = partial(_searched, matrix, k, tol, high)
    if dtype == single:
        return search(shifted_cholesky(matrix, 1 / high, single), max_steps=STEPS)
    # One shift that rounding nearly always allows; else float32 would be of little use.
    shift = jnp.full((), 10 * jnp.finfo(single).eps, single)
    quick = search(blocked_cholesky(matrix, 1 / high, shift), max_steps=_STEPS_SINGLE)
    succeeded = quick.converged & jnp.all(jnp.isfinite(quick.values))

    def careful():
        return search(shifted_cholesky(matrix, 1 / high, dtype), max_steps=STEPS)

    return jax.lax.cond(succeeded, lambda: quick, careful)


def _searched(matrix, k, tol, high, factor, *, max_steps):
    """The lowest pairs, with the factor as preconditioner."""
    solve, coarse = cholesky_solver(factor), factor.diagonal[0].dtype
    multiply, options = partial(_dot, matrix), {"tol": tol, "high": high, "max_steps": max_steps}
    return solved_block(multiply, solve, coarse, len(matrix), k, **options)
