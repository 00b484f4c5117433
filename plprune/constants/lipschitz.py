# SPDX-License-Identifier: Apache-2.0
"""The Lipschitz constant of a gradient: the largest |eigenvalue| of its Hessian."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.operators import flat, hessian_product
from plprune.spectra import ritz_ends
from plprune.types import Estimate, Objective, Params


class LargestSeen(NamedTuple):
    """Lipschitz constants at some points of a region: a lower bound of their supremum."""

    lower_bound: Float[Array, ""]  # The largest of `values`.
    values: Float[Array, " points"]


def lipschitz_constant(
    objective: Objective,
    params: Params,
    batch: Any,
    *,
    key: PRNGKeyArray,
    tol: float = 1e-6,
    max_steps: int = 200,
) -> Estimate:
    """Largest |Hessian eigenvalue| of ``objective(params, batch)`` at `params`.

    It is the local Lipschitz constant of the gradient, in the objective's own normalisation.

    Args:
      objective: ``(params, batch) -> scalar``.
      params: Point at which it is taken.
      batch: Passed to `objective`.
      key: Draws the first Krylov direction.
      tol: Relative residual at which Lanczos stops; the value's own error is of order tol^2.
      max_steps: Most Hessian products; memory is ``max_steps`` copies of the parameters.

    Returns:
      `error` is the residual of the eigenpair: measured, and valid up to a first direction that
      misses the top eigenvector, which has probability zero. Unresolved (value 0) where the
      Hessian vanishes to rounding or is not finite.
    """
    like = ravel_pytree(params)[0]
    with jax.default_matmul_precision("highest"):
        matvec = flat(hessian_product(objective, params, batch), params)
        ends = ritz_ends(matvec, like, key=key, tol=tol, max_steps=max_steps, which="magnitude")
    magnitudes = jnp.abs(ends.values)
    top = jnp.argmax(magnitudes)
    value, residual = magnitudes[top], ends.residuals[top]
    error = residual + 10 * jnp.finfo(like.dtype).eps * value
    finite = jnp.isfinite(value) & jnp.isfinite(error)
    resolved = finite & (value > error)
    bound = jnp.where(finite, value + error, jnp.inf)
    return Estimate(jnp.where(resolved, value, 0), jnp.where(resolved, error, bound), resolved)


def lipschitz_on_path(
    objective: Objective,
    start: Params,
    end: Params,
    batch: Any,
    *,
    key: PRNGKeyArray,
    num_points: int,
    tol: float = 1e-3,
    max_steps: int = 100,
) -> LargestSeen:
    """The largest Lipschitz constant at evenly spaced points of the segment from start to end.

    A lower bound of the supremum over the segment, never a bound from above. Costs `num_points`
    times `lipschitz_constant`, one point after the other.

    Raises:
      ValueError: fewer than two points.
    """
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}.")

    def at(fraction):
        return jax.tree.map(lambda a, b: a + fraction.astype(a.dtype) * (b - a), start, end)

    points = jnp.linspace(0.0, 1.0, num_points)
    return _largest(objective, at, points, batch, key, tol, max_steps)


def lipschitz_in_ball(
    objective: Objective,
    center: Params,
    radius: float,
    batch: Any,
    *,
    key: PRNGKeyArray,
    num_points: int,
    tol: float = 1e-3,
    max_steps: int = 100,
) -> LargestSeen:
    """The largest Lipschitz constant at uniformly drawn points of a ball around `center`.

    A lower bound of the supremum over the ball, and a loose one: in many dimensions nearly all
    draws lie near the surface, in directions that change the function little. Costs `num_points`
    times `lipschitz_constant`.

    Raises:
      ValueError: a negative radius, or no points.
    """
    if radius < 0:
        raise ValueError(f"radius must not be negative, got {radius}.")
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}.")
    vector, unravel = ravel_pytree(center)
    key_points, key_solve = jax.random.split(key)

    def at(point_key):
        return unravel(
            vector + radius * jax.random.ball(point_key, vector.size, dtype=vector.dtype)
        )

    points = jax.random.split(key_points, num_points)
    return _largest(objective, at, points, batch, key_solve, tol, max_steps)


def _largest(objective, at, points, batch, key, tol, max_steps):
    def value(point):
        estimate = lipschitz_constant(
            objective, at(point), batch, key=key, tol=tol, max_steps=max_steps
        )
        return estimate.value

    values = jax.lax.map(value, points)
    return LargestSeen(jnp.max(values), values)
