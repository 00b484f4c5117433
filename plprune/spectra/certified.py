# SPDX-License-Identifier: Apache-2.0
"""Both ends by block Davidson on products and solves, wherever the matrix lies."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from plprune.spectra.davidson import (
    Block,
    BlockProduct,
    krylov_basis,
    lowest_block,
    space_size,
    value_errors,
)
from plprune.spectra.factors import relative_slack

STEPS = 200


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


def highest_block(multiply: BlockProduct, size: int, dtype: DTypeLike, *, tol: float) -> Block:
    """The highest pairs, as the lowest of the negative matrix."""
    start = multiply(first_block(size, space_size(1)[0], dtype))
    return lowest_block(
        lambda x: -multiply(x),
        lambda residuals: residuals,
        start,
        1,
        tol=tol,
        floor=jnp.zeros((), dtype),
        max_steps=STEPS,
    )


def solved_block(
    multiply: BlockProduct,
    solve: Callable[[Array], Array],
    coarse: DTypeLike,
    size: int,
    num_smallest: int,
    *,
    tol: float,
    high: Float[Array, ""],
    max_steps: int = STEPS,
) -> Block:
    """The lowest pairs, with a solver in the dtype `coarse` as preconditioner.

    Args:
      multiply: The matrix, in the dtype of `high`.
      solve: Close to its inverse, on blocks of the dtype `coarse`.
      coarse: Dtype of the solver.
      size: n.
      num_smallest: How many pairs are wanted.
      tol: Relative error at which they have converged.
      high: A positive number of the size of the largest eigenvalue.
      max_steps: Most products.
    """
    dtype = high.dtype

    def precondition(residuals):
        # Scaled to 1: residuals may be too small for the squares of single precision.
        length = jnp.maximum(jnp.linalg.norm(residuals, axis=0), jnp.finfo(dtype).tiny)
        return solve((residuals / length[None]).astype(coarse)).astype(dtype)

    columns, blocks = space_size(num_smallest)
    first = first_block(size, columns, coarse)
    start = krylov_basis(solve, first, blocks // 2).astype(dtype)  # Half of a space.
    return lowest_block(
        multiply,
        precondition,
        start,
        num_smallest,
        tol=tol,
        floor=high * relative_slack(size, dtype) / 2,
        max_steps=max_steps,
    )


def first_block(size: int, columns: int, dtype: DTypeLike) -> Float[Array, "n q"]:
    """Directions without a pattern that a kernel could share: quadratic phases."""
    rows = jnp.arange(1, size + 1, dtype=dtype)[:, None]
    phases = jnp.sqrt(jnp.arange(2, columns + 2, dtype=dtype) + 0.5)[None]
    return jnp.cos(rows * phases + 0.7 * jnp.mod(rows, 97) ** 2)


def extreme_pairs(
    bottom: Block, top: Block, num_smallest: int, *, factorised: bool = True
) -> ExtremePairs:
    """The pairs with residuals, bounds and the slack of rounding."""
    low, high = bottom.values, -top.values[0]
    scale = jnp.maximum(jnp.abs(high), jnp.abs(low[0]))
    slack = relative_slack(len(bottom.vectors), low.dtype) * scale
    errors = [value_errors(block, 1)[0] for block in (bottom, top)]
    # One slack is that of the residuals, the other that of the certificates' factors.
    errors = [slack + (e + slack if factorised else jnp.maximum(e, slack)) for e in errors]
    return ExtremePairs(
        smallest=low[:num_smallest],
        smallest_vectors=bottom.vectors[:, :num_smallest],
        smallest_residuals=jnp.linalg.norm(bottom.residuals[:, :num_smallest], axis=0),
        largest=high,
        largest_vector=top.vectors[:, 0],
        largest_residual=jnp.linalg.norm(top.residuals[:, 0]),
        lower=low[0] - errors[0],
        upper=high + errors[1],
        slack=slack,
        lower_error=errors[0],
        upper_error=errors[1],
    )


def in_units(pairs: ExtremePairs, unit: Float[Array, ""]) -> ExtremePairs:
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
