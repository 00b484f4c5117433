# SPDX-License-Identifier: Apache-2.0
"""Both ends of the spectrum of a dense symmetric positive semidefinite matrix."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from plprune.spectra.certificates import is_lowest
from plprune.spectra.davidson import (
    Block,
    krylov_basis,
    lowest_block,
    space_size,
    value_errors,
)
from plprune.spectra.factors import (
    blocked_cholesky,
    cholesky_solver,
    relative_slack,
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
_STEPS = 200
_STEPS_SINGLE = 40  # Of a solver in float32, which either helps at once or not at all.


class ExtremePairs(NamedTuple):
    """The k smallest eigenpairs and the largest one, with what is known of their errors.

    Each value lies within its residual of an eigenvalue. The least eigenvalue lies in
    ``[lower, smallest[0] + slack]`` and the greatest in ``[largest - slack, upper]``, where slack,
    max(10, sqrt n) eps lambda_max and what underflow may have taken, covers the rounding of the
    working precision. Without
    certificates these bounds are infinite.
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
    lower_error: Float[Array, ""]  # smallest[0] - lower, without the rounding of the difference.
    upper_error: Float[Array, ""]  # upper - largest.


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
    return _in_units(_solve(matrix / unit, num_smallest, method, tol), unit)


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


def _in_units(pairs, unit):
    """The pairs of ``unit * matrix``; entries that underflow may have been lost to zero."""
    n = len(pairs.largest_vector)
    lost = n * jnp.finfo(unit.dtype).tiny
    low, high = pairs.smallest * unit, pairs.largest * unit
    errors = pairs.lower_error * unit + lost, pairs.upper_error * unit + lost
    return ExtremePairs(
        smallest=low,
        smallest_vectors=pairs.smallest_vectors,
        smallest_residuals=pairs.smallest_residuals * unit,
        largest=high,
        largest_vector=pairs.largest_vector,
        largest_residual=pairs.largest_residual * unit,
        lower=low[0] - errors[0],
        upper=high + errors[1],
        slack=pairs.slack * unit + lost,
        lower_error=errors[0],
        upper_error=errors[1],
    )


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
    return _pairs(bottom, top, k, factorised=False)


def _by_cholesky(matrix, k, tol):
    """Pairs and whether both ends are certified."""
    top = _top(matrix, tol)
    high = jnp.maximum(-top.values[0], jnp.finfo(matrix.dtype).tiny)
    bottom = _bottom(matrix, k, tol, high)
    pairs = _pairs(bottom, top, k)
    # Eigenvalues at the level of rounding are as good as zero whatever their certificate says.
    is_noise = pairs.smallest[0] <= pairs.slack
    is_certified = is_lowest(matrix, -1, top, high) & (
        is_lowest(matrix, 1, bottom, high) | is_noise
    )
    return pairs, is_certified


def _by_krylov(matrix, k):
    """Ritz pairs of one space for each end, as they come."""
    size, dtype = len(matrix), matrix.dtype
    first = _first_block(size, space_size(1)[0], dtype)
    top = _ritz(-matrix, krylov_basis(partial(_dot, matrix), first, _KRYLOV))
    high = jnp.maximum(-top.values[0], jnp.finfo(dtype).tiny)
    solve = cholesky_solver(shifted_cholesky(matrix, 1 / high, dtype))
    first = _first_block(size, space_size(k)[0], dtype)
    bottom = _ritz(matrix, krylov_basis(solve, first, _KRYLOV))
    unknown = jnp.full((), jnp.inf, dtype)
    return _pairs(bottom, top, k)._replace(lower_error=unknown, upper_error=unknown)


def _ritz(matrix, basis):
    """All Ritz pairs of a space, whose directions need not be orthonormal."""
    basis = jnp.linalg.qr(basis)[0]
    images = _dot(matrix, basis)
    small = _dot(basis.T, images)
    values, rotation = jnp.linalg.eigh((small + small.T) / 2)
    vectors = _dot(basis, rotation)
    residuals = _dot(images, rotation) - vectors * values[None]
    return Block(values, vectors, residuals, jnp.zeros((), bool))


def _top(matrix, tol):
    """The highest pairs, as the lowest of the negative matrix."""
    start = _dot(matrix, _first_block(len(matrix), space_size(1)[0], matrix.dtype))
    nothing = jnp.zeros((), matrix.dtype)
    return lowest_block(
        lambda x: -_dot(matrix, x),
        lambda residuals: residuals,
        start,
        1,
        tol=tol,
        floor=nothing,
        max_steps=_STEPS,
    )


def _bottom(matrix, k, tol, high):
    """The lowest pairs by a solver in float32, or in the matrix's own dtype where that fails."""
    dtype, single = matrix.dtype, jnp.dtype(jnp.float32)
    search = partial(_searched, matrix, k, tol, high)
    if dtype == single:
        return search(shifted_cholesky(matrix, 1 / high, single), max_steps=_STEPS)
    # One shift that rounding nearly always allows; else float32 would be of little use.
    shift = jnp.full((), 10 * jnp.finfo(single).eps, single)
    quick = search(blocked_cholesky(matrix, 1 / high, shift), max_steps=_STEPS_SINGLE)
    succeeded = quick.converged & jnp.all(jnp.isfinite(quick.values))

    def careful():
        return search(shifted_cholesky(matrix, 1 / high, dtype), max_steps=_STEPS)

    return jax.lax.cond(succeeded, lambda: quick, careful)


def _searched(matrix, k, tol, high, factor, *, max_steps):
    """The lowest pairs, with the factor as preconditioner."""
    size, dtype, solve = len(matrix), matrix.dtype, cholesky_solver(factor)
    coarse = factor.diagonal[0].dtype

    def precondition(residuals):
        # Scaled to 1: residuals may be too small for the squares of single precision.
        length = jnp.maximum(jnp.linalg.norm(residuals, axis=0), jnp.finfo(dtype).tiny)
        return solve((residuals / length[None]).astype(coarse)).astype(dtype)

    columns, blocks = space_size(k)
    first = _first_block(size, columns, coarse)
    start = krylov_basis(solve, first, blocks // 2).astype(dtype)  # Half of a space.
    return lowest_block(
        partial(_dot, matrix),
        precondition,
        start,
        k,
        tol=tol,
        floor=high * relative_slack(size, dtype) / 2,
        max_steps=max_steps,
    )


def _first_block(size, columns, dtype):
    """Directions without a pattern that a kernel could share: quadratic phases."""
    rows = jnp.arange(1, size + 1, dtype=dtype)[:, None]
    phases = jnp.sqrt(jnp.arange(2, columns + 2, dtype=dtype) + 0.5)[None]
    return jnp.cos(rows * phases + 0.7 * jnp.mod(rows, 97) ** 2)


def _pairs(bottom, top, k, *, factorised=True):
    """The pairs with residuals, bounds and the slack of rounding."""
    low, high = bottom.values, -top.values[0]
    scale = jnp.maximum(jnp.abs(high), jnp.abs(low[0]))
    slack = relative_slack(len(bottom.vectors), low.dtype) * scale
    errors = [value_errors(block, 1)[0] for block in (bottom, top)]
    # One slack is that of the residuals, the other that of the certificates' factors.
    errors = [slack + (e + slack if factorised else jnp.maximum(e, slack)) for e in errors]
    return ExtremePairs(
        smallest=low[:k],
        smallest_vectors=bottom.vectors[:, :k],
        smallest_residuals=jnp.linalg.norm(bottom.residuals[:, :k], axis=0),
        largest=high,
        largest_vector=top.vectors[:, 0],
        largest_residual=jnp.linalg.norm(top.residuals[:, 0]),
        lower=low[0] - errors[0],
        upper=high + errors[1],
        slack=slack,
        lower_error=errors[0],
        upper_error=errors[1],
    )
