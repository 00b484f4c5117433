# SPDX-License-Identifier: Apache-2.0
"""The Lipschitz constant of a gradient: the largest |eigenvalue| of its Hessian."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.compilation import compile_once
from plprune.constants.resolution import estimate, magnitude, real_leaves, traced
from plprune.operators import flat, hessian_product
from plprune.spectra import ritz_ends
from plprune.types import Estimate, Objective, Params


class LargestSeen(NamedTuple):
    """Lipschitz constants at some points of a region: a lower bound of their supremum."""

    lower_bound: Float[Array, ""]  # The largest of `values`.
    values: Float[Array, " points"]


@compile_once("params", "batch", "key")
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
      params: Point at which it is taken. Leaves that are not floating-point numbers are held
        fixed, and those of fewer than 32 bits raised to float32.
      batch: Passed to `objective`.
      key: Draws the first Krylov direction.
      tol: Relative residual at which Lanczos stops; the value's own error is of order tol^2 where
        no other eigenvalue lies within about tol of it.
      max_steps: Most Hessian products; memory is ``max_steps`` copies of the parameters.

    Returns:
      `error` bounds the truth with a probability of at least 99.8 % over `key`, whatever the
      spectrum: the margins of `plprune.spectra.RitzEnds` and the rounding of the arithmetic that
      `objective` computes in (that of bfloat16 where it casts to bfloat16). That is far more than
      the usual error, about 1000 times the residual, since one eigenvalue may hide so close to the
      others. Iterations that `max_steps` cut short have large errors. Unresolved (value 0) where
      the error is as large as the value, the Hessian vanishes to rounding, is so small that
      underflow took digits, or is not finite.

    Raises:
      ValueError: no floating-point leaf, complex leaves, or an `objective` that does not return
        one real number.
    """
    function, leaves = real_leaves(objective, params)
    if sum(p.size for p in leaves) == 0:
        raise ValueError("params must hold at least one floating-point number, got none.")
    result, arithmetic = traced(lambda p: function(p, batch), leaves, name="objective")
    if result.shape:
        raise ValueError(f"objective must return a scalar, got shape {result.shape}.")
    like = ravel_pytree(leaves)[0]
    with jax.default_matmul_precision("highest"):
        matvec = flat(hessian_product(function, leaves, batch), leaves)
        ends = ritz_ends(matvec, like, key=key, tol=tol, max_steps=max_steps, which="magnitude")
    value, error = magnitude(ends)
    return estimate(value, error + 2 * arithmetic.rounding(like.size) * value, arithmetic)


@compile_once("start", "end", "batch", "key")
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

    A lower bound of the supremum over the segment, never a bound from above; points where the
    constant is not resolved count as 0. Leaves that are not floating-point numbers are held at
    those of `start`. Costs `num_points` times `lipschitz_constant`, one point after the other.

    Raises:
      ValueError: fewer than two points, leaves of different shapes, or as `lipschitz_constant`.
    """
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}.")
    function, first = real_leaves(objective, start)
    _, last = real_leaves(objective, end)
    if list(map(jnp.shape, first)) != list(map(jnp.shape, last)):
        raise ValueError("start and end must have floating-point leaves of the same shapes.")

    def at(fraction):
        return [a + fraction.astype(a.dtype) * (b - a) for a, b in zip(first, last, strict=True)]

    points = jnp.linspace(0.0, 1.0, num_points)
    return _largest(function, at, points, batch, key, tol, max_steps)


@compile_once("center", "batch", "key")
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
    times `lipschitz_constant`; points where that is not resolved count as 0.

    Raises:
      ValueError: a negative radius, no points, or as `lipschitz_constant`.
    """
    if radius < 0:
        raise ValueError(f"radius must not be negative, got {radius}.")
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}.")
    function, leaves = real_leaves(objective, center)
    vector, unravel = ravel_pytree(leaves)
    key_points, key_solve = jax.random.split(key)

    def at(point_key):
        return unravel(
            vector + radius * jax.random.ball(point_key, vector.size, dtype=vector.dtype)
        )

    points = jax.random.split(key_points, num_points)
    return _largest(function, at, points, batch, key_solve, tol, max_steps)


def _largest(objective, at, points, batch, key, tol, max_steps):
    def value(point):
        estimate = lipschitz_constant(
            objective, at(point), batch, key=key, tol=tol, max_steps=max_steps
        )
        return estimate.value

    values = jax.lax.map(value, points)
    return LargestSeen(jnp.max(values), values)
