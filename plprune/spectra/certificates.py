# SPDX-License-Identifier: Apache-2.0
"""Proofs that nothing lies below the lowest Ritz pairs of a dense matrix."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plprune.spectra.davidson import Block, gap_bounds, value_errors
from plprune.spectra.factors import blocked_cholesky, has_factor, relative_slack


def is_lowest(
    matrix: Float[Array, "n n"], sign: int, block: Block, high: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether ``sign * matrix`` has no eigenvalue below ``values[0] - value_errors``, to rounding.

    Off the first j Ritz vectors V the matrix must not lie below beta, the middle of the gap after
    them, which it does not if ``A + tau V V' - beta`` has a Cholesky factor. As beta need not be
    close to anything, float32 can tell where the gap exceeds its rounding. Else, ``A - bound`` must
    have a factor in the matrix's own dtype. Derived in docs/mathematics/spectra.md.

    Args:
      matrix: Symmetric [n, n].
      sign: 1, or -1 for a proof about the highest eigenvalue.
      block: The lowest Ritz pairs of ``sign * matrix``.
      high: A positive number of the size of the largest eigenvalue.
    """
    dtype, single = matrix.dtype, jnp.dtype(jnp.float32)
    if dtype == single:  # One factorisation to compile: of an update by nothing, or by vectors.
        return has_factor(blocked_cholesky(matrix, sign / high, *shift_to_factorise(block, high)))
    is_wide, shift, update = _by_gap(block, high, single)
    return jax.lax.cond(
        is_wide,
        lambda: has_factor(blocked_cholesky(matrix, sign / high, shift, update)),
        lambda: has_factor(blocked_cholesky(matrix, sign / high, _by_value(block, high))),
    )


def shift_to_factorise(
    block: Block, high: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, "n q"]]:
    """A shift and an update U, in the block's dtype, that decide `is_lowest`.

    The proof is a Cholesky factor of ``sign * matrix / high + shift + U U'``.
    """
    dtype = block.values.dtype
    is_wide, low, update = _by_gap(block, high, dtype)
    return jnp.where(is_wide, low, _by_value(block, high)), jnp.where(is_wide, update, 0)


def _by_gap(block, high, dtype):
    """Whether the gap is wider than the rounding of `dtype`, and what to factorise if so."""
    bounds, half_gaps = gap_bounds(block)
    count = jnp.argmin(bounds)
    half, rounding = half_gaps[count], high * relative_slack(len(block.vectors), dtype)
    lowest, error = block.values[0], value_errors(block, 1)[0]
    is_wide = (half >= 2 * rounding) & (bounds[count] <= error)
    # Scaled to 1, so that float32 neither overflows nor underflows.
    lift = 2 * (block.values[-1] - lowest) / high
    is_lifted = jnp.arange(block.vectors.shape[1]) <= count
    update = jnp.where(is_lifted[None], jnp.sqrt(lift) * block.vectors, 0).astype(dtype)
    return is_wide, -((lowest + half + rounding) / high).astype(dtype), update


def _by_value(block, high):
    error = value_errors(block, 1)[0]
    return (-block.values[0] + error) / high + relative_slack(len(block.vectors), high.dtype)
