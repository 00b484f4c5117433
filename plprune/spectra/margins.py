# SPDX-License-Identifier: Apache-2.0
"""How far outside of its Ritz values a random Krylov space may have missed an eigenvalue."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

PROBABILITY = 1e-3  # That an eigenvalue lies beyond its margin, over the random start.
_WIDEST = 2.0**6  # Of the margins tried, in units of the largest entry of the small matrix.


def outer_margins(
    alpha: Float[Array, " m"],
    lengths: Float[Array, " m"],
    closed: Bool[Array, " m"],
    count: Int[Array, ""],
    values: Float[Array, "2"],
    size: int,
) -> Float[Array, "2"]:
    """Margins that no eigenvalue exceeds but with a `PROBABILITY` for each end.

    An eigenvector u whose eigenvalue x lies above all Ritz values meets the start b of a space of k
    steps in ``|u'b| = |u'v| / p_k(x) <= 1/p_k(x)``, with the next Lanczos vector v and the
    orthonormal polynomial p_k of the recurrence, which grows outside of the Ritz values. A random b
    is that close to orthogonal with a probability below ``0.8 sqrt(n)/p_k(x)``. Where the space
    closes another random start follows, whose probability multiplies. Nothing is assumed of the
    spectrum: derived in docs/mathematics/spectra.md.

    Args:
      alpha: Diagonal of the tridiagonal matrix, of a scale near 1.
      lengths: Its off-diagonal, with the length of what was left after the last step; where
        the space closed, the length of what was neglected.
      closed: Where it did.
      count: How many steps were taken; what follows is ignored.
      values: The lowest and the highest Ritz value.
      size: n, of the whole matrix.

    Returns:
      The margins below and above, to a factor of two. Infinite where nothing is known.

    References:
      [van Dorsselaer, Hochstenbach & van der Vorst 2000], with one polynomial.
    """
    used = jnp.arange(len(alpha), dtype=count.dtype) < count
    neglected = 2 * jnp.max(jnp.where(used & closed, lengths, 0))
    extent = jnp.max(jnp.where(used, jnp.maximum(jnp.abs(alpha), lengths), 0))
    info = jnp.finfo(alpha.dtype)
    powers = np.arange(-info.nmant, np.log2(_WIDEST) + 1)
    margins = extent * jnp.asarray(np.exp2(powers), alpha.dtype)
    signs = jnp.array([-1, 1], alpha.dtype)
    evidence = _evidence(
        (signs[None] * alpha[:, None], lengths, closed, used),
        (signs * values)[:, None] + margins[None],
        math.log(0.8 * size**0.5),
    )
    is_outside = evidence >= -math.log(PROBABILITY)
    found = jnp.min(jnp.where(is_outside, margins[None], jnp.inf), axis=1)
    # Fresh starts count only for what does not lie in the closed space, and once all directions
    # are used up nothing can be missed.
    found = jnp.maximum(found, 5 * neglected)
    return jnp.where((count == size) & jnp.isfinite(found + neglected), neglected, found)


def _evidence(rows, points, needed):
    """Minus the logarithm of the probability that an eigenvalue at each point was missed.

    The ratios ``b_j p_j / p_{j-1}`` of the recurrence are pivots of ``x - T``, positive outside of
    the Ritz values, and overflow nowhere.
    """
    tiny = jnp.finfo(points.dtype).tiny

    def step(carry, row):
        coupling, growth, total = carry
        alpha, length, closed, used = row
        pivot = jnp.maximum(points - alpha[:, None] - coupling, tiny)
        growth = growth + jnp.where(used, jnp.log(pivot) - jnp.log(length), 0)
        ended = closed & used
        total = total + jnp.where(ended, jnp.maximum(growth - needed, 0), 0)
        return (jnp.where(ended, 0, length**2 / pivot), jnp.where(ended, 0, growth), total), None

    nothing = jnp.zeros_like(points)
    _, growth, total = jax.lax.scan(step, (nothing,) * 3, rows)[0]
    return total + jnp.maximum(growth - needed, 0)
