# SPDX-License-Identifier: Apache-2.0
"""Cholesky factors of shifted matrices: as certificates of definiteness and as solvers."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import linalg
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_SHIFTS = 12  # Each 8 times the one before; the first is 4 eps.
_ROWS, _BLOCKS = 256, 16  # Least rows of a block of the factor, most blocks.


class Factor(NamedTuple):
    """A lower factor by blocks of columns; block k has rows [r] after [s] of earlier blocks."""

    left: tuple[Float[Array, "r s"], ...]  # Beside the diagonal block; the first has s = 0.
    diagonal: tuple[Float[Array, "r r"], ...]
    below: tuple[Float[Array, "t r"], ...]  # The last has t = 0.


def relative_slack(size: int, dtype: DTypeLike) -> float:
    """What rounding moves eigenvalues of a factorised matrix by, relative to the largest.

    max(10, sqrt n) eps: errors of random signs add up like the root of n [Higham & Mary 2019].
    """
    return max(10.0, size**0.5) * float(jnp.finfo(dtype).eps)


def blocked_cholesky(
    matrix: Float[Array, "n n"],
    scale: Float[Array, ""],
    shift: Float[Array, ""],
    update: Float[Array, "n q"] | None = None,
) -> Factor:
    """The factor of ``scale * matrix + shift + update update'`` in the dtype of `shift`.

    From the upper triangle. Each block of columns takes one product for all earlier ones, then a
    small factorisation and a triangular solve [Golub & Van Loan 2013, ch. 4.2]: n^3/3 operations,
    most of them in products, which use all cores, and no copy of the whole matrix. Entries are not
    finite from the first block on that has no factor.
    """
    size = len(matrix)
    rows = max(_ROWS, -(-size // _BLOCKS))
    # All earlier columns, from the current row on.
    left = jnp.zeros((size, 0), shift.dtype)
    parts = []
    for start in range(0, size, rows):
        height = min(rows, size - start)
        # Rows of the upper triangle: LAPACK counts by columns, so this spares a copy of them all.
        column = (scale * matrix[start : start + height, start:].T).astype(shift.dtype)
        column = column.at[:height].add(shift * jnp.eye(height, dtype=shift.dtype))
        if update is not None:
            column = column + _dot(update[start:], update[start : start + height].T)
        column = column - _dot(left, left[:height].T)
        square = linalg.cholesky(column[:height], symmetrize_input=False)
        below = linalg.triangular_solve(square, column[height:], lower=True, transpose_a=True)
        parts.append((left[:height], square, below))
        left = jnp.concatenate([left[height:], below], axis=1)
    return Factor(*zip(*parts, strict=True))


def has_factor(factor: Factor) -> Bool[Array, ""]:
    """Whether the factorisation went through.

    If so, the matrix has no eigenvalue below zero by more than rounding [Higham 2002, ch. 10].
    """
    return jnp.isfinite(factor.diagonal[-1][-1, -1])


def shifted_cholesky(
    matrix: Float[Array, "n n"], scale: Float[Array, ""], dtype: DTypeLike
) -> Factor:
    """Factor of ``scale * matrix`` plus the least tried shift that makes it definite.

    With a `scale` that brings the largest eigenvalue to 1. The shifts grow from 4 eps eightfold.
    Matrices that are zero, not finite or far from semidefinite fail at every one.
    """
    shift = 4 * jnp.finfo(dtype).eps * jnp.ones((), dtype)
    shapes = jax.eval_shape(blocked_cholesky, matrix, scale, shift)
    # Tracing and compiling the factorisation once is worth a loop that always runs.
    nothing = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
    factorise = lambda _, shift: blocked_cholesky(matrix, scale, shift)  # noqa: E731
    return least_shifted(factorise, has_factor, nothing, shift)


def least_shifted(
    factorise: Callable[[Any, Any], Any],
    succeeded: Callable[[Any], Bool[Array, ""]],
    nothing: Any,
    shift: Float[Array, ""],
) -> Any:
    """The factor with the least tried shift that has one; shifts grow eightfold.

    Args:
      factorise: ``(the last one, shift) -> factor``, whatever a factor is.
      succeeded: Whether it is one.
      nothing: A factor that is none.
      shift: The first one.
    """

    def failed(carry):
        factor, _, count = carry
        return ~succeeded(factor) & (count < _SHIFTS)

    def retry(carry):
        factor, shift, count = carry
        return factorise(factor, shift), 8 * shift, count + 1

    return jax.lax.while_loop(failed, retry, (nothing, shift, 0))[0]


def cholesky_solver(factor: Factor) -> Callable[[Float[Array, "n q"]], Float[Array, "n q"]]:
    """``x -> (L L')^-1 x`` for few columns at a time.

    Substitution by blocks whose diagonal blocks are inverted once: the rest is products, which
    beat triangular solves of few columns by far. The inverses cost accuracy where a block is
    ill-conditioned; an iteration that measures its own residuals may pay that.
    """
    inverses = [_solved(d, jnp.eye(len(d), dtype=d.dtype)) for d in factor.diagonal]
    # Products with a transpose copy it every time, so the copies are made here, once.
    right, transposed = jax.lax.optimization_barrier(
        ([b.T for b in factor.below], [i.T for i in inverses])
    )
    heights = [len(square) for square in factor.diagonal]
    starts = [sum(heights[:k]) for k in range(len(heights))]

    def solve(x):
        forward = jnp.zeros((0, x.shape[1]), x.dtype)
        for start, height, left, inverse in zip(
            starts, heights, factor.left, inverses, strict=True
        ):
            rest = x[start : start + height] - _dot(left, forward)
            forward = jnp.concatenate([forward, _dot(inverse, rest)])
        solved = jnp.zeros((0, x.shape[1]), x.dtype)
        for k in reversed(range(len(starts))):
            rest = forward[starts[k] : starts[k] + heights[k]] - _dot(right[k], solved)
            solved = jnp.concatenate([_dot(transposed[k], rest), solved])
        return solved

    return solve


def _solved(square, right):
    return linalg.triangular_solve(square, right, left_side=True, lower=True)
