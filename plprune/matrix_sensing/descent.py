# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on the regularised loss, and fine-tuning without the regulariser."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from plprune.matrix_sensing.problem import Factor, Problem, gradient
from plprune.optimizers.penalties import Scalar, SmoothForm, penalty_factors


class Descent(NamedTuple):
    """Where gradient descent ended, and why."""

    factor: Factor
    gradient_norm: Float[Array, ""]  # Frobenius, of the whole objective, where it ended.
    steps: Int[Array, ""]


class LinearFit(NamedTuple):
    """Least-squares line through log(squared distance) against steps."""

    slope: Float[Array, ""]  # Natural logarithm a step.
    r2: Float[Array, ""]  # Coefficient of determination.
    decades: Float[Array, ""]  # How far the fitted distances fall.


def small_start(
    d: int, k: int, *, scale: float, key: PRNGKeyArray, dtype: DTypeLike = jnp.float32
) -> Factor:
    """U of entries scale N(0, 1) / sqrt(d): columns of norm about `scale`."""
    return scale / math.sqrt(d) * jax.random.normal(key, (d, k), dtype)


def descend(
    problem: Problem,
    start: Factor,
    *,
    step_size: Scalar,
    num_steps: int | Int[Array, ""],
    strength: Scalar = 0.0,
    beta: Scalar = 1e-3,
    form: SmoothForm = "rational",
    tol: Scalar = 0.0,
) -> Descent:
    """Gradient descent on the loss + strength R_beta, until the gradient's norm falls to `tol`.

    Strength 0 is plain training, and fine-tuning where `start` is a pruned factor. The truth is a
    stable fixed point where the step size stays below 1 / (4 sigma_1^2), sigma_1 its largest
    singular value (Gaussian population). Under `vmap` the loop runs until the last run has
    finished. `check_regulariser` finds settings that cannot work. Costs one gradient a step.

    Args:
      problem: What to fit.
      start: U at step 0; its dtype is the run's.
      step_size: Of every step.
      num_steps: Where to stop if `tol` is not reached.
      strength: lambda, the weight of the regulariser; may be traced.
      beta: The regulariser's smoothing; may be traced.
      form: Which regulariser: see `group_penalty`.
      tol: On the Frobenius norm of the gradient; 0 runs all the steps.
    """

    def slope(factor):
        squares = jnp.sum(jnp.square(factor), axis=0)
        factors = penalty_factors(squares, beta=beta, form=form)
        total = gradient(problem, factor) + strength * factors[None] * factor
        return total.astype(start.dtype)

    def unfinished(state):
        _, slope_now, steps = state
        return (steps < num_steps) & (_norm(slope_now) > tol)

    def step(state):
        factor, slope_now, steps = state
        moved = (factor - step_size * slope_now).astype(start.dtype)
        return moved, slope(moved), steps + 1

    state = start, slope(start), jnp.zeros((), jnp.int32)
    factor, last_slope, steps = jax.lax.while_loop(unfinished, step, state)
    return Descent(factor, _norm(last_slope), steps)


def distances_to_limit(
    problem: Problem, start: Factor, *, step_size: Scalar, num_steps: int
) -> Float[Array, " steps"]:
    """|U_t - U_limit|_F^2 at steps 0, 1, ... of fine-tuning, U_limit the run's own limit.

    The limit is where the run stands after four times `num_steps`; each run of gradient descent has
    its own, because U and U Q fit equally well for every rotation Q. Use float64.
    """
    limit = descend(problem, start, step_size=step_size, num_steps=4 * num_steps).factor

    def step(factor, _):
        moved = (factor - step_size * gradient(problem, factor)).astype(start.dtype)
        return moved, jnp.sum(jnp.square(factor - limit))

    return jax.lax.scan(step, start, length=num_steps)[1]


def fit_linear_convergence(
    squared_distances: Float[Array, " steps"], *, floor: Scalar
) -> LinearFit:
    """Fitted rate of linear convergence, over the steps before rounding takes over.

    Args:
      squared_distances: Of an iteration to its limit, at consecutive steps.
      floor: Distances from the first one at or below this on are left out. Fewer than three
        distances make the fit meaningless: slope and r2 are then 0.
    """
    steps = jnp.arange(squared_distances.size, dtype=squared_distances.dtype)
    used = jnp.cumsum(squared_distances <= floor) == 0
    tiny = jnp.finfo(squared_distances.dtype).tiny
    logs = jnp.log(jnp.maximum(squared_distances, tiny))
    count = jnp.maximum(jnp.sum(used), 1)

    def centred(values):
        return jnp.where(used, values - jnp.sum(jnp.where(used, values, 0)) / count, 0)

    x, y = centred(steps), centred(logs)
    enough = jnp.sum(used) >= 3
    slope = jnp.where(enough, jnp.vdot(x, y) / jnp.maximum(jnp.vdot(x, x), 1), 0)
    r2 = 1 - jnp.sum(jnp.square(y - slope * x)) / jnp.maximum(jnp.vdot(y, y), tiny)
    last = jnp.min(jnp.where(used, logs, jnp.inf))
    decades = jnp.where(enough, (logs[0] - last) / math.log(10), 0)
    return LinearFit(slope, jnp.where(enough, r2, 0), decades)


def curvatures(problem: Problem, factor: Factor) -> Float[Array, " m"]:
    """Eigenvalues of the loss's Hessian at a minimiser U, but for the k (k - 1) / 2 of rotations.

    U and U Q fit equally well, so that many directions are flat and gradient descent never moves
    along them. For the Gaussian population and U = U* Q they are 4 (sigma_i^2 + sigma_j^2) for
    i <= j, and 4 sigma_j^2 d - r times each: derived in docs/mathematics/group_lasso.md. Dense:
    d k derivatives of gradients, a few at a time, and (d k)^2 numbers.

    Returns:
      Ascending, m = d k - k (k - 1) / 2.
    """
    d, k = factor.shape

    def flat(entries):
        return gradient(problem, entries.reshape(d, k)).ravel()

    def column(direction):
        return jax.jvp(flat, (factor.ravel(),), (direction,))[1]

    # All at once would hold d k matrices of size d x d.
    hessian = jax.lax.map(column, jnp.eye(d * k, dtype=factor.dtype), batch_size=min(d * k, 16))
    values = jnp.linalg.eigvalsh((hessian + hessian.T) / 2)
    return values[k * (k - 1) // 2 :]


def predicted_slope(curvatures: Float[Array, " m"], step_size: Scalar) -> Float[Array, ""]:
    """Slope that the theory predicts for log squared distance: the slowest direction wins.

    2 log max |1 - step_size h| over the Hessian's non-zero eigenvalues h at the limit. Derived in
    docs/mathematics/group_lasso.md.
    """
    return 2 * jnp.log(jnp.max(jnp.abs(1 - step_size * curvatures)))


def _norm(array):
    return jnp.sqrt(jnp.sum(jnp.square(array)))
