# SPDX-License-Identifier: Apache-2.0
"""Sums of bounded functions, on which the condition is known in closed form."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import brentq, minimize_scalar

from plprune.conditions import Pair


class Problem(NamedTuple):
    """f = mean of f_i on R^d."""

    losses: Callable[[Float[Array, " d"]], Float[Array, " n"]]
    project: Callable[[Float[Array, " d"]], Float[Array, " d"]]  # The nearest minimiser of f.
    minimum: float  # f*
    minima: np.ndarray  # f_i*, [n]
    smoothness: float  # L of every f_i; inf where gradients are not Lipschitz everywhere.
    pair: Pair | None  # That holds everywhere, or within `radius` of the minimisers.
    dimension: int = 2  # d
    radius: float = math.inf

    @property
    def noise(self) -> float:
        """sigma^2 = f* - mean f_i*."""
        return float(self.minimum - self.minima.mean())


def line() -> Problem:
    """Example 1: u^2 / (1 + u^2) of u = x + y and of u = x + y + 1; S is the line in between."""
    offsets = jnp.array([0.0, 1.0])

    def losses(x):
        u = jnp.square(jnp.sum(x) + offsets)
        return u / (1 + u)

    def project(x):
        return x - (jnp.sum(x) + 0.5) / 2

    return Problem(losses, project, 0.2, np.zeros(2), 4.0, Pair(2.5, 2.0))


def two_wells() -> Problem:
    """Example 2: 1 - exp(-|x|^2) and the same around (2, 2); S is two points near the centres.

    The pair has alpha - beta = 8, with the large alpha that the proof's constants give.
    """
    centres = jnp.array([[0.0, 0.0], [2.0, 2.0]])

    def losses(x):
        return -jnp.expm1(-_squared_distances(x, centres))

    return _diagonal(losses, [(-0.5, 0.5), (1.5, 2.5)], np.zeros(2), 2.0, Pair(8.8e6, 8.8e6 - 8))


def shallow_well() -> Problem:
    """Example 3: (1 + |x|^2) / (4 + |x|^2) and q / (1 + q), q = |x - (2.5, 2.5)|^2.

    One minimiser near (2.5, 2.5), and a local minimum near 0.
    """
    centres = jnp.array([[0.0, 0.0], [2.5, 2.5]])
    added, below = jnp.array([1.0, 0.0]), jnp.array([4.0, 1.0])

    def losses(x):
        q = _squared_distances(x, centres)
        return (added + q) / (below + q)

    pair = Pair(1512.46, 1511.46)
    return _diagonal(losses, [(2.0, 3.0)], np.array([0.25, 0.0]), 2.0, pair)


def near_wells() -> Problem:
    """Two functions q / (1 + q), centred at 0 and at (1, 1); S is two points between them."""
    centres = jnp.array([[0.0, 0.0], [1.0, 1.0]])

    def losses(x):
        q = _squared_distances(x, centres)
        return q / (1 + q)

    return _diagonal(losses, [(0.0, 0.45), (0.55, 1.0)], np.zeros(2), 2.0, Pair(41.37, 40.37))


def shared_line(offsets: Float[np.ndarray, " n"], dimension: int) -> Problem:
    """Example 1 in R^d with n functions u^2 / (1 + u^2), u = sum_j x_j + a_i.

    S is the hyperplane where sum_j x_j is the best scalar, found to rounding by a scan and a
    bounded search.
    """
    offsets = jnp.asarray(offsets, float)

    def of_sum(total):
        u = jnp.square(total + offsets)
        return u / (1 + u)

    best, minimum = _best_scalar(lambda t: float(jnp.mean(of_sum(t))), offsets)

    def project(x):
        return x - (jnp.sum(x) - best) / dimension

    smoothness = 2.0 * dimension
    minima = np.zeros(len(offsets))
    return Problem(
        lambda x: of_sum(jnp.sum(x)), project, minimum, minima, smoothness, None, dimension
    )


def wells(centres: Float[np.ndarray, "n d"]) -> Problem:
    """Functions q / (1 + q) in R^d, q the squared distance to a centre.

    Stationary points are means of the centres with weights 1 / (1 + q)^2; iterating that from every
    centre never raises f, and what ends lowest is S. `near_wells` has two centres.

    Raises:
      ValueError: There is no centre.
    """
    if not len(centres):
        raise ValueError("centres must hold at least one point, got none.")
    minimisers, minimum = _lowest_means(np.asarray(centres, float))
    points, centres = jnp.asarray(minimisers), jnp.asarray(centres, float)

    def losses(x):
        q = _squared_distances(x, centres)
        return q / (1 + q)

    def project(x):
        return points[jnp.argmin(_squared_distances(x, points))]

    gaps = np.square(minimisers[:, None] - np.asarray(centres)).sum(-1)
    pair = None
    if gaps.min() > 0:
        alpha = float((np.maximum(1, gaps / 3) * (1 + gaps) / gaps).max())
        pair = Pair(alpha, alpha - 1)
    minima = np.zeros(len(centres))
    return Problem(losses, project, minimum, minima, 2.0, pair, centres.shape[1])


def interpolated(num_functions: int, dimension: int, *, key: Array) -> Problem:
    """Least squares (a_i' x)^2 / 2 without noise: alpha = 2 and beta = 0, S the null space."""
    rows = jax.random.normal(key, (num_functions, dimension))
    onto_rows = jnp.linalg.pinv(rows) @ rows

    def losses(x):
        return jnp.square(rows @ x) / 2

    return Problem(
        losses,
        lambda x: x - onto_rows @ x,
        0.0,
        np.zeros(num_functions),
        float(jnp.max(jnp.sum(jnp.square(rows), axis=1))),
        Pair(2.0, 0.0),
        dimension,
    )


def _squared_distances(x, centres):
    return jnp.sum(jnp.square(jnp.broadcast_to(x, centres.shape) - centres), axis=1)


def _diagonal(losses, brackets, minima, smoothness, pair):
    """A problem whose minimisers lie on the diagonal, one in each bracket."""
    slope = jax.jit(jax.grad(lambda t: jnp.mean(losses(jnp.stack([t, t])))))
    minimisers = jnp.array([[t, t] for t in (_root(slope, *b) for b in brackets)])

    def project(x):
        return minimisers[jnp.argmin(_squared_distances(x, minimisers))]

    minimum = float(jnp.mean(losses(minimisers[0])))
    return Problem(losses, project, minimum, minima, smoothness, pair)


def _root(slope, low, high):
    """Where the slope changes sign: derivatives resolve a minimiser that values cannot."""
    return brentq(lambda t: float(slope(t)), low, high, xtol=1e-15)


def _lowest_means(centres, steps=5000):
    """The lowest points that weighted means of the centres converge to, and f there."""
    found = np.concatenate([centres, centres.mean(0, keepdims=True)])
    for _ in range(steps):
        weights = 1 / (1 + np.square(found[:, None] - centres).sum(-1)) ** 2
        found = weights @ centres / weights.sum(1, keepdims=True)
    q = np.square(found[:, None] - centres).sum(-1)
    values = (q / (1 + q)).mean(1)
    lowest = found[values <= values.min() + 1e-12]
    far = np.linalg.norm(lowest[:, None] - lowest, axis=-1) > 1e-6
    first = [i for i in range(len(lowest)) if far[i, :i].all()]
    return lowest[first], float(values.min())


def _best_scalar(value, offsets):
    grid = np.linspace(-float(offsets.max()) - 1, -float(offsets.min()) + 1, 200)
    i = int(np.argmin([value(t) for t in grid]))
    bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    found = minimize_scalar(value, bounds=bounds, method="bounded", options={"xatol": 1e-12})
    return float(found.x), float(found.fun)
