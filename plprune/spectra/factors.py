"""Cholesky factors of shifted matrices: as certificates of definiteness and as solvers."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Bool, Float

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_SHIFTS = 12  # Each 8 times the one before; the first is 4 eps lambda_max.
_ROWS = 256  # Of a block in substitution.


def is_definite(matrix: Float[Array, "n n"], shift: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether the symmetric ``matrix + shift`` has a Cholesky factor.

    If so, no eigenvalue lies below zero by more than rounding [Higham 2002, ch. 10]. Costs n^3/3
    operations.
    """
    return jnp.isfinite(_factor(matrix, shift)[-1, -1])


def shifted_cholesky(matrix: Float[Array, "n n"], scale: Float[Array, ""]) -> Float[Array, "n n"]:
    """Lower factor of `matrix` plus the least tried shift that makes it definite.

    The shifts grow from 4 eps `scale` eightfold. Matrices that are zero, not finite or far from
    semidefinite fail at every one; their factor is not finite.
    """

    def failed(carry):
        factor, _, count = carry
        return ~jnp.isfinite(factor[-1, -1]) & (count < _SHIFTS)

    def retry(carry):
        _, shift, count = carry
        return _factor(matrix, 8 * shift), 8 * shift, count + 1

    shift = 4 * jnp.finfo(matrix.dtype).eps * scale
    return jax.lax.while_loop(failed, retry, (_factor(matrix, shift), shift, 0))[0]


def cholesky_solver(
    factor: Float[Array, "n n"],
) -> Callable[[Float[Array, "n q"]], Float[Array, "n q"]]:
    """``x -> (L L')^-1 x`` for few columns at a time.

    Substitution by blocks of rows whose diagonal blocks are inverted once: the rest is products,
    which on busy cores beat triangular solves of few columns by far. The inverses cost accuracy
    where a block is ill-conditioned; an iteration that measures its own residuals may pay that.
    """
    size = len(factor)
    count = -(-size // _ROWS)
    rows = -(-size // count)
    extra = count * rows - size
    if extra:
        ones = jnp.concatenate([jnp.zeros(size, factor.dtype), jnp.ones(extra, factor.dtype)])
        factor = jnp.pad(factor, ((0, extra), (0, extra))) + jnp.diag(ones)
    panels = factor.reshape(count, rows, -1)
    squares = factor.reshape(count, rows, count, rows)[jnp.arange(count), :, jnp.arange(count)]
    eye = jnp.broadcast_to(jnp.eye(rows, dtype=factor.dtype), squares.shape)
    inverses = linalg.triangular_solve(squares, eye, left_side=True, lower=True)

    def solve(x):
        padded = jnp.pad(x, ((0, extra), (0, 0))).reshape(count, rows, -1)
        solved = _substitute_back(panels, inverses, _substitute(panels, inverses, padded))
        return solved.reshape(count * rows, -1)[:size]

    return solve


def _substitute(panels, inverses, right):
    """L^-1 times `right` [blocks, rows, q], first block first."""
    count, rows, columns = right.shape

    def step(k, solved):
        known = _dot(panels[k], solved.reshape(count * rows, columns))
        return solved.at[k].set(_dot(inverses[k], right[k] - known))

    return jax.lax.fori_loop(0, count, step, jnp.zeros_like(right))


def _substitute_back(panels, inverses, right):
    """L'^-1 times `right` [blocks, rows, q], last block first."""

    def step(index, carry):
        rest, solved = carry
        k = len(right) - 1 - index
        block = _dot(inverses[k].T, rest[k])
        rest = rest - _dot(panels[k].T, block).reshape(rest.shape)
        return rest, solved.at[k].set(block)

    return jax.lax.fori_loop(0, len(right), step, (right, jnp.zeros_like(right)))[1]


def _factor(matrix, shift):
    # A symmetric matrix read by columns is itself; the transpose spares LAPACK a copy.
    shifted = matrix.T + shift * jnp.eye(len(matrix), dtype=matrix.dtype)
    return linalg.cholesky(shifted, symmetrize_input=False)
