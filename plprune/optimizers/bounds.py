# SPDX-License-Identifier: Apache-2.0
"""Convergence bounds under the alpha-beta-condition, as functions of its constants.

Each bounds min_{k < K} E[f(x^k) - f*] (`nsgd_bound`: of the gradient's norm) for f = mean of f_i,
every f_i L-smooth and one f_i drawn uniformly per step. The common arguments:

* num_steps: K >= 1.
* squared_distance: dist(x^0, S)^2; where the docstring says so, the largest over the run.
* noise: sigma^2 = f* - mean f_i* >= 0, which is 0 under interpolation.
* pair: (alpha, beta) with alpha > beta >= 0.

All are derived in docs/mathematics/alpha_beta.md.
"""

import math

import numpy as np

from plprune.conditions.frontier import Pair


def sgd_bound(
    num_steps: int,
    pair: Pair,
    *,
    step_size: float,
    smoothness: float,
    squared_distance: float,
    noise: float,
) -> float:
    """Bound for SGD with a constant step, at most (alpha - beta) / (2 L) [Islamov 2024, Thm. 1].

    Raises:
      ValueError: The step is larger than that, or a common argument is out of range.
    """
    margin = _margin(num_steps, pair)
    if not 0 < step_size <= margin / (2 * smoothness):
        limit = margin / (2 * smoothness)
        raise ValueError(f"step_size must lie in (0, {limit:g}], got {step_size}.")
    decay = squared_distance / (num_steps * step_size)
    return (decay + 2 * (smoothness * step_size + pair.beta) * noise) / margin


def sgd_decreasing_bound(
    num_steps: int,
    pair: Pair,
    *,
    step_size: float,
    smoothness: float,
    squared_distance: float,
    noise: float,
) -> float:
    """Bound for SGD with steps step_size / sqrt(k + 1), the first at most (alpha - beta) / (2 L).

    Raises:
      ValueError: As `sgd_bound`.
    """
    margin = _margin(num_steps, pair)
    sgd_bound(
        1, pair, step_size=step_size, smoothness=smoothness, squared_distance=0.0, noise=0.0
    )  # Checks the step.
    decay = squared_distance / (4 * step_size) + step_size * smoothness * noise * math.log(
        num_steps + 1
    )
    return (5 * decay / math.sqrt(num_steps) + 2 * pair.beta * noise) / margin


def sps_max_bound(
    num_steps: int,
    pair: Pair,
    *,
    c: float,
    max_step_size: float,
    smoothness: float,
    squared_distance: float,
    noise: float,
) -> float:
    """Bound for `sps_max` with c > 1 / (2 (alpha - beta)) [Islamov 2024].

    Raises:
      ValueError: c is too small, or a common argument is out of range.
    """
    gain = _polyak_gain(_margin(num_steps, pair), c)
    smallest = min(1 / (2 * c * smoothness), max_step_size)
    factor = 1 / (smallest * gain)
    return factor * (squared_distance / num_steps + 2 * pair.alpha * max_step_size * noise)


def dec_sps_bound(
    num_steps: int,
    pair: Pair,
    *,
    c: float,
    max_step_size: float,
    smoothness: float,
    squared_distance: float,
    noise: float,
) -> float:
    """Bound for `dec_sps` with c > 1 / (2 (alpha - beta)); ours, with our own constants.

    `squared_distance` is the largest dist(x^k, S)^2 over the run.

    Raises:
      ValueError: c is too small, or a common argument is out of range.
    """
    gain = _polyak_gain(_margin(num_steps, pair), c)
    slowest = max(2 * smoothness, 1 / (c * max_step_size))
    decay = (c * slowest * squared_distance + 2 * noise / c) / math.sqrt(num_steps)
    return (decay + 2 * pair.beta * noise) / gain


def ngn_bound(
    num_steps: int,
    pair: Pair,
    *,
    step_size: float,
    smoothness: float,
    squared_distance: float,
    noise: float,
    mean_minimum: float,
) -> float:
    """Bound for `ngn` with a constant gamma and alpha >= beta + 1 [Islamov 2024, eq. 11].

    The last term is beta sigma^2, as the derivation gives it; the statement prints twice that.

    Args:
      num_steps: K.
      pair: (alpha, beta).
      step_size: gamma, any positive number.
      smoothness: L.
      squared_distance: dist(x^0, S)^2.
      noise: sigma^2.
      mean_minimum: Mean of f_i* >= 0.

    Raises:
      ValueError: alpha < beta + 1, or a common argument is out of range.
    """
    margin = _margin(num_steps, pair)
    if margin < 1:
        raise ValueError(f"pair must have alpha >= beta + 1, got {tuple(pair)}.")
    reach = step_size * smoothness
    gain = 2 * reach * (margin - 1) + margin
    decay = squared_distance * (1 + 2 * reach) ** 2 / (2 * step_size * num_steps)
    spread = 3 * reach * pair.alpha * (1 + reach) * noise
    spread += reach * max(2 * reach - 1, 0.0) * mean_minimum
    return (decay + spread + pair.beta * noise) / gain


def ngn_decreasing_bound(
    step_sizes: np.ndarray,
    pair: Pair,
    *,
    smoothness: float,
    squared_distance: float,
    noise: float,
) -> float:
    """Bound for `ngn` with any schedule of gamma_k < (alpha - beta) / L; ours.

    Args:
      step_sizes: gamma_k of the K steps.
      pair: (alpha, beta); alpha need not exceed beta by 1.
      smoothness: L.
      squared_distance: dist(x^0, S)^2.
      noise: sigma^2.

    Raises:
      ValueError: A step is out of range, or a common argument is.
    """
    steps = np.asarray(step_sizes, float)
    margin, reach = _margin(steps.size, pair), smoothness * steps
    if not ((steps > 0) & (reach < margin)).all():
        limit = margin / smoothness
        raise ValueError(f"step_sizes must lie in (0, {limit:g}), got up to {steps.max():g}.")
    shrunk = steps / (1 + reach)
    gain = 2 * np.sum(shrunk * (margin - reach))
    spread = 2 * noise * np.sum(shrunk * (pair.beta + reach * (pair.alpha + 1)))
    return float((squared_distance + spread) / gain)


def adagrad_norm_max_bound(
    num_steps: int,
    pair: Pair,
    *,
    step_size: float,
    initial: float,
    largest_gradient: float,
    squared_distance: float,
    noise: float,
) -> float:
    """Bound for `adagrad_norm_max`; ours, with our own constants.

    Args:
      num_steps: K.
      pair: (alpha, beta).
      step_size: gamma.
      initial: b_{-1}.
      largest_gradient: Bound on |grad f_i(x^k)| over the run.
      squared_distance: Largest dist(x^k, S)^2 over the run.
      noise: sigma^2.

    Raises:
      ValueError: A common argument is out of range.
    """
    margin = _margin(num_steps, pair)
    accumulated = math.sqrt(initial**2 + num_steps * largest_gradient**2)
    decay = (squared_distance / step_size + 2 * step_size) * accumulated / (2 * num_steps)
    return (decay + pair.beta * noise) / margin


def nsgd_bound(
    num_steps: int,
    *,
    step_size: float,
    momentum: float,
    smoothness: float,
    excess: float,
    deviation: float = 0.0,
) -> float:
    """Bound on min_k E|grad f(x^k)| for `nsgd`, without any condition but smoothness.

    Args:
      num_steps: K.
      step_size: Length of a step.
      momentum: In [0, 1).
      smoothness: L of f.
      excess: f(x^0) - f*.
      deviation: Square root of a bound on E|grad f_i(x) - grad f(x)|^2.

    Raises:
      ValueError: num_steps below 1, or momentum outside [0, 1).
    """
    _check_steps(num_steps)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}.")
    lag = momentum / (1 - momentum)
    averaged = math.sqrt((1 - momentum) / (1 + momentum))
    averaged += math.sqrt(2 * momentum / (1 + momentum)) / ((1 - momentum) * num_steps)
    drift = smoothness * step_size * (0.5 + 2 * lag)
    return excess / (num_steps * step_size) + drift + 2 * averaged * deviation


def _margin(num_steps, pair):
    _check_steps(num_steps)
    if not pair.alpha > pair.beta >= 0:
        raise ValueError(f"pair must satisfy alpha > beta >= 0, got {tuple(pair)}.")
    return pair.alpha - pair.beta


def _check_steps(num_steps):
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")


def _polyak_gain(margin, c):
    gain = 2 * margin - 1 / c
    if not (c > 0 and gain > 0):
        raise ValueError(f"c must exceed {1 / (2 * margin):g}, got {c}.")
    return gain
