# SPDX-License-Identifier: Apache-2.0
"""The pairs (alpha, beta) that hold at recorded points: an exact polygon, without a grid.

A point is three numbers: inner = <grad f_i(x), x - x_p>, gap = f_i(x) - f_i(x_p) and
excess = f_i(x) - f_i* >= 0. A pair holds at it where inner - alpha gap + beta excess >= 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plprune.norms import raised

Numbers = Float[Array | np.ndarray, "..."]
MARGIN = 0.1  # By how much alpha exceeds beta in the plots of [Islamov 2024].
CHUNK = 2**22  # Numbers at a time in `worst_margins`.


class Pair(NamedTuple):
    """Constants of the alpha-beta-condition; both infinite where no pair holds."""

    alpha: float
    beta: float


class Frontier(NamedTuple):
    """Tightest beta >= 0 for every alpha in [low, high], in float64: convex, piecewise linear.

    Empty (no vertices, low = inf, high = -inf) where some point excludes every pair.
    """

    alphas: Float[np.ndarray, " v"]  # Vertices in order; the first at `low`.
    betas: Float[np.ndarray, " v"]
    slopes: Float[np.ndarray, " v"]  # From each vertex to the next, rising.
    low: float
    high: float  # inf unless a point with excess 0 bounds alpha.

    def beta(self, alpha: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
        """Tightest beta for each alpha; inf outside [low, high]."""
        alpha = np.asarray(alpha, float)
        if not len(self.alphas):
            return np.full(alpha.shape, np.inf)
        i = np.maximum(np.searchsorted(self.alphas, alpha, side="right") - 1, 0)
        found = self.betas[i] + self.slopes[i] * (alpha - self.alphas[i])
        return np.where((alpha < self.low) | (alpha > self.high), np.inf, found)


def smallest_beta(
    alpha: float | Float[Array, ""], inner: Numbers, gap: Numbers, excess: Numbers
) -> Float[Array, ""]:
    """Tightest beta >= 0 with which `alpha` holds at every point.

    The maximum of (alpha gap - inner) / excess over the points with excess > 0, or 0. A violated
    point with excess <= 0, which no beta can help, makes it inf; so does a NaN.

    Args:
      alpha: Any number.
      inner: <grad f_i(x), x - x_p>, of any shape.
      gap: f_i(x) - f_i(x_p), of the same shape.
      excess: f_i(x) - f_i*, of the same shape.

    Raises:
      ValueError: The shapes differ, or there is no point.

    References:
      [Islamov 2024, Def. 1]; derived in docs/mathematics/alpha_beta.md. Works under jit and vmap,
      in float32 or wider.
    """
    _check(inner, gap, excess)
    inner, gap, excess = (jnp.asarray(raised(numbers)) for numbers in (inner, gap, excess))
    need = alpha * gap - inner
    positive = excess > 0
    quotient = jnp.where(positive, need, 0) / jnp.where(positive, excess, 1)
    beta = jnp.maximum(jnp.max(quotient), 0)
    hopeless = jnp.any(~positive & ~(need <= beta * excess))
    return jnp.where(hopeless | jnp.isnan(beta), jnp.inf, beta)


def alpha_beta_frontier(inner: Numbers, gap: Numbers, excess: Numbers) -> Frontier:
    """The whole feasible boundary: `smallest_beta` for every alpha >= 0 at once.

    Each point with excess > 0 asks for beta >= (gap / excess) alpha - inner / excess; the boundary
    is the upper envelope of these lines. Sorted by slope, a stack of lines finds it in
    O(n log n): a general hull code merges what is close relative to the largest quotient, and tiny
    excesses make that large. On the host, in float64; exact up to rounding.

    Args:
      inner: <grad f_i(x), x - x_p>, of any shape.
      gap: f_i(x) - f_i(x_p), of the same shape.
      excess: f_i(x) - f_i* >= 0, of the same shape.

    Raises:
      ValueError: The shapes differ, there is no point, a number is not finite, or excess < 0.
    """
    inner, gap, excess = _host(inner, gap, excess)
    low, high = _range_of_alpha(inner[excess == 0], gap[excess == 0])
    if low > high:
        return Frontier(np.empty(0), np.empty(0), np.empty(0), np.inf, -np.inf)
    positive = excess > 0
    with np.errstate(over="ignore"):
        slopes, heights = gap[positive] / excess[positive], -inner[positive] / excess[positive]
    fits = np.isfinite(slopes) & np.isfinite(heights)
    if not fits.all():
        raise ValueError(
            "excess must not be so small beside gap and inner that quotients overflow."
        )
    slopes, heights = _candidates(np.append(slopes, 0.0), np.append(heights, 0.0))
    alphas, slopes, heights = _envelope(slopes, heights)
    alphas, slopes, heights = _clip(alphas, slopes, heights, low, high)
    betas = slopes * alphas + heights
    # At a vertex two lines meet; the flatter one gives its height without cancellation.
    flatter = np.abs(slopes[:-1]) < np.abs(slopes[1:])
    betas[1:] = np.where(flatter, slopes[:-1] * alphas[1:] + heights[:-1], betas[1:])
    return Frontier(alphas, betas, slopes, low, high)


def smallest_pair(frontier: Frontier, *, margin: float = MARGIN) -> Pair:
    """The smallest feasible alpha with alpha >= beta + margin, and its tightest beta.

    Exact: alpha minus the tightest beta is concave in alpha, so that its first crossing of `margin`
    is on a known edge. Both numbers are inf where no pair is feasible.

    Raises:
      ValueError: margin is negative.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}.")
    if not len(frontier.alphas):
        return Pair(np.inf, np.inf)
    room = frontier.alphas - frontier.betas - margin
    if room[0] >= 0:
        alpha = frontier.alphas[0]
    else:
        reached = np.flatnonzero(room >= 0)
        i = (reached[0] if len(reached) else len(room)) - 1
        growth = 1 - frontier.slopes[i]
        alpha = frontier.alphas[i] - room[i] / growth if growth > 0 else np.inf
    if alpha > frontier.high:
        return Pair(np.inf, np.inf)
    return Pair(float(alpha), float(frontier.beta(alpha))) if alpha < np.inf else Pair(alpha, alpha)


def noise_factor(frontier: Frontier) -> float:
    """The smallest beta / (alpha - beta) of all feasible pairs, 0 where beta = 0 is feasible.

    Twice this number times sigma^2 is the error that SGD's bound leaves for small steps: it says
    how far apart alpha and beta can be, in units of beta. On an edge of the frontier the quotient
    is monotone, so that it is least at a vertex or as alpha grows. inf where no pair with
    alpha > beta is feasible.

    References:
      [Islamov 2024, Thm. 1]; derived in docs/mathematics/alpha_beta.md.
    """
    alphas, betas = frontier.alphas, frontier.betas
    if frontier.high < np.inf:
        alphas, betas = (
            np.append(alphas, frontier.high),
            np.append(betas, frontier.beta(frontier.high)),
        )
    room = alphas - betas
    quotients = betas[room > 0] / room[room > 0]
    if len(frontier.slopes) and frontier.high == np.inf and frontier.slopes[-1] < 1:
        last = max(float(frontier.slopes[-1]), 0.0)
        quotients = np.append(quotients, last / (1 - last))
    return float(quotients.min(initial=np.inf))


def worst_margins(
    alphas: Numbers, betas: Numbers, inner: Numbers, gap: Numbers, excess: Numbers
) -> Float[np.ndarray, "..."]:
    """Smallest value over points of inner - alpha gap + beta excess, for each pair: a heat map.

    A pair works where this is >= 0. On the host, in float64, O(pairs * points).

    Args:
      alphas: Of any shape.
      betas: Of the same shape as `alphas`.
      inner: <grad f_i(x), x - x_p>, of any shape.
      gap: f_i(x) - f_i(x_p), of the same shape as `inner`.
      excess: f_i(x) - f_i*, of the same shape as `inner`.

    Raises:
      ValueError: The shapes differ, or there is no point.
    """
    _check(inner, gap, excess)
    if np.shape(alphas) != np.shape(betas):
        raise ValueError(f"betas must have shape {np.shape(alphas)}, got {np.shape(betas)}.")
    pairs = np.stack([np.ones(np.size(alphas)), -np.ravel(alphas), np.ravel(betas)], axis=1)
    points = np.stack([np.ravel(inner), np.ravel(gap), np.ravel(excess)]).astype(float)
    found = np.full(len(pairs), np.inf)
    size = max(1, CHUNK // max(1, len(pairs)))
    for start in range(0, points.shape[1], size):
        found = np.minimum(found, (pairs @ points[:, start : start + size]).min(axis=1))
    return found.reshape(np.shape(alphas))


def _check(inner, gap, excess):
    for name, other in (("gap", gap), ("excess", excess)):
        if np.shape(other) != np.shape(inner):
            raise ValueError(f"{name} must have shape {np.shape(inner)}, got {np.shape(other)}.")
    if not np.size(inner):
        raise ValueError("inner must hold at least one point, got none.")


def _host(inner, gap, excess):
    _check(inner, gap, excess)
    arrays = [np.ravel(np.asarray(a, float)) for a in (inner, gap, excess)]
    for name, array in zip(("inner", "gap", "excess"), arrays, strict=True):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}.")
    if arrays[2].min() < 0:
        raise ValueError(f"excess must be at least 0, got {arrays[2].min()}.")
    return arrays


def _range_of_alpha(inner, gap):
    """Where points of excess 0 allow alpha: inner >= alpha gap."""
    with np.errstate(over="ignore"):
        low = max([0.0, *(inner[gap < 0] / gap[gap < 0])])
        high = min([np.inf, *(inner[gap > 0] / gap[gap > 0])])
    hopeless = (inner[gap == 0] < 0).any()
    return (np.inf, -np.inf) if hopeless else (float(low), float(high))


def _candidates(slopes, heights):
    """The lines by rising slope, without those that another one exceeds for every alpha >= 0."""
    order = np.lexsort((-heights, slopes))
    slopes, heights = slopes[order], heights[order]
    highest = np.append(True, np.diff(slopes) > 0)  # Of the lines of each slope.
    slopes, heights = slopes[highest], heights[highest]
    steeper = np.append(np.maximum.accumulate(heights[::-1])[::-1][1:], -np.inf)
    return slopes[heights > steeper], heights[heights > steeper]


def _envelope(slopes, heights):
    """Where each line of the upper envelope takes over, with its slope and height."""
    starts, lines = [-np.inf], []
    for line in zip(slopes.tolist(), heights.tolist(), strict=True):
        start = -np.inf
        while lines:
            slope, height = lines[-1]
            start = (height - line[1]) / (line[0] - slope)
            if start > starts[len(lines) - 1]:
                break
            lines.pop()
        start = start if lines else -np.inf
        starts[len(lines) :] = [start]
        lines.append(line)
    return np.array(starts), *np.array(lines).T


def _clip(starts, slopes, heights, low, high):
    """The lines that matter in [low, high]; the first starts at `low`."""
    first = np.searchsorted(starts, low, side="right") - 1
    part = slice(first, np.searchsorted(starts, high, side="right"))
    return np.maximum(starts[part], low), slopes[part], heights[part]
