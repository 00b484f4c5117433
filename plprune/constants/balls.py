# SPDX-License-Identifier: Apache-2.0
"""What is seen of a function at random points of a ball: bounds of its extremes, one-sided."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.constants.resolution import real_leaves
from plprune.types import Params


class SeenInBall(NamedTuple):
    """Values at sampled points; one-sided, as a sample never sees the worst point."""

    infimum_at_most: Float[Array, ""]
    supremum_at_least: Float[Array, ""]
    values: Float[Array, " points"]  # The first is that at the centre.


def seen_in_ball(
    measure: Callable[[Params], Float[Array, ""]],
    center: Params,
    radius: float,
    *,
    key: PRNGKeyArray,
    num_points: int,
) -> SeenInBall:
    """`measure` at the centre of a ball and at points drawn uniformly from it.

    The largest value is a lower bound of the supremum over the ball and the smallest an upper bound
    of the infimum, both loose: in many dimensions random directions change a network little.

    Args:
      measure: ``params -> scalar``, such as the value of `jacobian_norm` or `hessian_norm`.
      center: Tree of arrays. Leaves that are not floating-point numbers are held fixed, and those
        of fewer than 32 bits raised to float32.
      radius: Of the ball, in the Euclidean norm of all parameters.
      key: Draws the points.
      num_points: How many, besides the centre; one after the other.

    Raises:
      ValueError: a negative radius, no points, or complex leaves.
    """
    if radius < 0:
        raise ValueError(f"radius must not be negative, got {radius}.")
    if num_points < 1:
        raise ValueError(f"num_points must be at least 1, got {num_points}.")
    measure_at, leaves = real_leaves(lambda p, _: measure(p), center)
    vector, unravel = ravel_pytree(leaves)

    def shifted(place):
        shift = jax.random.ball(jax.random.fold_in(key, place), vector.size, dtype=vector.dtype)
        return measure_at(unravel(vector + jnp.where(place == 0, 0.0, radius) * shift), None)

    values = jax.lax.map(shifted, jnp.arange(num_points + 1))
    return SeenInBall(jnp.min(values), jnp.max(values), values)
