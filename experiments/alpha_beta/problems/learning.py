# SPDX-License-Identifier: Apache-2.0
"""Two small learning problems: a factorisation, and a ReLU network under the logistic loss."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

from experiments.alpha_beta.problems.bounded import Problem
from plprune.conditions import Pair

EXAMPLES = ((2.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-2.0, 1.0))  # The positive ones disagree.
POLISHING = 3  # Newton steps on a root that eigenvalues give to about 1e-12.


def factorization(
    size: int = 4, *, signal: float = 1.0, noise: float = 0.5, radius: float = 3.0
) -> Problem:
    """f_ij = (X_ij - w_i s_j)^2 / 2 with X = signal 1 1' + noise h h', h = (1, -1, 1, -1, ...).

    The minimisers are w = g sqrt(signal) 1, s = sqrt(signal) 1 / g for every g other than 0, where
    each residual is `noise` in size; the nearest one is a root of a quartic. A point is (w, s) in
    R^(2 size). The pair is (alpha, alpha - 1) with alpha = (1 + radius^2 / (2 noise))^2.

    Raises:
      ValueError: size is not even and positive, or not signal > noise > 0.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size must be even and at least 2, got {size}.")
    if not signal > noise > 0:
        raise ValueError(f"noise must lie in (0, {signal}), got {noise}.")
    signs, root = jnp.resize(jnp.array([1.0, -1.0]), size), math.sqrt(signal)
    target = signal + noise * jnp.outer(signs, signs)

    def losses(x):
        return jnp.square(target - jnp.outer(x[:size], x[size:])).ravel() / 2

    def project(x):
        g = _nearest_scale(jnp.mean(x[:size]) / root, jnp.mean(x[size:]) / root)
        return root * jnp.repeat(jnp.stack([g, 1 / g]), size)

    alpha = (1 + radius**2 / (2 * noise)) ** 2
    return Problem(
        losses, project, noise**2 / 2, np.zeros(size**2), math.inf, Pair(alpha, alpha - 1),
        2 * size, radius,
    )  # fmt: skip


def relu_logistic(
    examples: Sequence[tuple[float, float]] = EXAMPLES,
    *,
    hidden: int = 2,
    penalty: float = 0.05,
    radius: float = 2.0,
) -> Problem:
    """A two-layer ReLU network of numbers, under the logistic loss with weight decay.

    f_i = log(1 + exp(-y_i sum_j v_j relu(w_j x_i))) + penalty / 2 (|w|^2 + |v|^2). It depends on
    the neurons of each sign of w through one sum of products, so that the best sums solve two
    convex equations, and the minimisers are all ways to share them among balanced neurons. A point
    is (w, v) in R^(2 hidden).

    Args:
      examples: Pairs of an input, not 0, and a label, -1 or 1.
      hidden: Neurons, at least 2; the projection tries 2^hidden ways to give them signs.
      penalty: Weight decay, positive.
      radius: Of the tube around the minimisers in which the pair holds.

    Raises:
      ValueError: Fewer than 2 neurons, a penalty that is not positive, or an input 0.
    """
    if hidden < 2:
        raise ValueError(f"hidden must be at least 2, got {hidden}.")
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}.")
    inputs, labels = np.array(examples, float).T
    if not inputs.all():
        raise ValueError(f"examples must have inputs other than 0, got {examples}.")
    sums = [_best_sum(inputs, labels, side, penalty) for side in (1, -1)]
    x_i, y_i = jnp.asarray(inputs, float), jnp.asarray(labels, float)

    def losses(x):
        w, v = x[:hidden], x[hidden:]
        outputs = jax.nn.relu(x_i[:, None] * w[None, :]) @ v
        return jnp.logaddexp(0.0, -y_i * outputs) + penalty / 2 * jnp.sum(jnp.square(x))

    def project(x):
        return _nearest_network(x[:hidden], x[hidden:], sums)

    end = project(jnp.ones(2 * hidden))
    at_end, minima = np.asarray(losses(end)), _lowest_each(np.abs(inputs), penalty)
    alpha = _bounded_excess(np.abs(inputs).max(), penalty, sums, radius) / (at_end - minima).min()
    pair = Pair(float(alpha), float(alpha - 1)) if 1 < alpha < math.inf else None
    return Problem(
        losses, project, float(at_end.mean()), minima, math.inf, pair, 2 * hidden, radius
    )


def _nearest_scale(p, q):
    """The g that minimises g^2 - 2 p g + 1 / g^2 - 2 q / g: a root of g^4 - p g^3 + q g - 1."""
    zero, one = jnp.zeros_like(p), jnp.ones_like(p)
    polynomial = jnp.stack([one, -p, zero, q, -one])
    # Real parts of complex roots are candidates like any other: none is better than the best.
    found = jnp.roots(polynomial, strip_zeros=False).real
    heights = found * (found - 2 * p) + (1 / found) * (1 / found - 2 * q)
    g = found[jnp.nanargmin(heights)]
    slope = jnp.polyder(polynomial)
    for _ in range(POLISHING):
        steepness = jnp.polyval(slope, g)
        g = g - jnp.where(steepness == 0, 0, jnp.polyval(polynomial, g) / steepness)
    return g


def _best_sum(inputs, labels, side, penalty):
    """The sum of v_j |w_j| over neurons with side w_j > 0 that minimises f."""
    chosen = side * inputs > 0
    x, y = np.abs(inputs[chosen]), labels[chosen]

    def slope(total):
        return -np.sum(y * x / (1 + np.exp(y * x * total))) / len(inputs)

    if abs(slope(0.0)) <= penalty:
        return 0.0
    sign = -np.sign(slope(0.0))
    highest = math.log(2) / penalty  # Beyond it the penalty alone exceeds f at 0.
    return sign * brentq(lambda t: sign * slope(sign * t) + penalty, 0.0, highest, xtol=1e-15)


def _nearest_network(w, v, sums):
    """The nearest of all ways to share the best sums among neurons with |v_j| = |w_j|."""
    positive = jnp.array(list(itertools.product([True, False], repeat=len(w))))
    networks, possible = [], True
    for side, total in ((1.0, sums[0]), (-1.0, sums[1])):
        chosen = positive if side > 0 else ~positive
        sign = np.sign(total) or 1.0
        pull = jnp.where(chosen, (side * w + sign * v)[None, :], -jnp.inf)
        share = math.sqrt(abs(total)) * _direction(pull)
        networks.append(jnp.concatenate([side * share, sign * share], axis=1))
        possible &= jnp.any(chosen, axis=1) | (total == 0)
    found = networks[0] + networks[1]
    distances = jnp.sum(jnp.square(found - jnp.concatenate([w, v])[None, :]), axis=1)
    return found[jnp.argmin(jnp.where(possible, distances, jnp.inf))]


def _direction(pull):
    """The unit vector without negative entries that goes furthest along `pull`; -inf bars one."""
    part = jnp.maximum(pull, 0)
    norm = jnp.linalg.norm(part, axis=1, keepdims=True)
    best = jax.nn.one_hot(jnp.argmax(pull, axis=1), pull.shape[1], dtype=pull.dtype)
    best = jnp.where(jnp.isfinite(pull), best, 0)
    return jnp.where(norm > 0, part / jnp.where(norm > 0, norm, 1), best)


def _lowest_each(sizes, penalty):
    """f_i*: one example alone wants |x_i| sigma(-|x_i| t) = penalty, or t = 0."""
    share = np.minimum(penalty / sizes, 0.5)
    return -np.log1p(-share) + penalty * np.log(1 / share - 1) / sizes


def _bounded_excess(largest, penalty, sums, radius):
    """A bound on f_i - f_i* - <grad f_i, x - x_p> within `radius` of the minimisers."""
    end = math.sqrt(2 * sum(map(abs, sums)))
    reach = end + radius
    return math.log(2) + largest * (reach**2 / 2 + reach * radius) + penalty * end**2 / 2
