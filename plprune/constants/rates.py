# SPDX-License-Identifier: Apache-2.0
"""Step sizes, rates and step counts that PL* guarantees, for the SUM loss 1/2 |F(w) - y|^2.

For a mean over b examples divide L, mu, beta and lambda by b: factors and step counts stay as they
are, a step size of gradient descent is b times larger. Derived in docs/mathematics/pl_star.md,
after [Liu 2022]. Arguments are numbers or arrays that broadcast.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from plprune.constants.certificates import Number


class Rate(NamedTuple):
    """A step size, and the factor by which each step multiplies (a bound of) the loss."""

    step_size: Float[Array, "..."]
    factor: Float[Array, "..."]


class AlmostPL(NamedTuple):
    """PL* where the loss is at least a threshold, as seen along a run."""

    pl_constant: Float[Array, ""]  # The smallest ratio up to the stopping time.
    stopping_time: Int[Array, ""]  # First step with a smaller loss; -1 if there is none.
    bound: Float[Array, ""]  # Steps after which the loss must be smaller, with that mu.


def descent_rate(pl_constant: Number, smoothness: Number) -> Rate:
    """Gradient descent: eta = 1/beta gives L+ <= (1 - mu/beta) L.

    Args:
      pl_constant: mu, with 1/2 |grad L|^2 >= mu L.
      smoothness: beta > 0, the Lipschitz constant of the gradient.
    """
    step_size = 1 / jnp.asarray(smoothness)
    return Rate(step_size, jnp.clip(1 - jnp.asarray(pl_constant) * step_size, 0, 1))


def stochastic_rate(
    pl_constant: Number,
    smoothness: Number,
    example_smoothness: Number,
    *,
    num_examples: int,
    batch_size: int,
) -> Rate:
    """Stochastic gradient descent on the SUM of the gradients of a batch drawn with replacement.

    eta = n mu/(beta (n lambda + mu (s - 1))) gives E L+ <= (1 - mu s eta/n) L.

    Args:
      pl_constant: mu of the loss L = sum_i l_i.
      smoothness: beta of L.
      example_smoothness: lambda with |grad l_i|^2 <= 2 lambda l_i for every example: the smoothness
        of non-negative l_i serves, and for l_i = 1/2 |r_i|^2 the largest lambda_max(K_ii).
      num_examples: n.
      batch_size: s.

    Raises:
      ValueError: counts below 1.
    """
    for name, count in (("num_examples", num_examples), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
    mu, beta = jnp.asarray(pl_constant), jnp.asarray(smoothness)
    noise = num_examples * jnp.asarray(example_smoothness) + mu * (batch_size - 1)
    step_size = num_examples * mu / (beta * noise)
    return Rate(step_size, jnp.clip(1 - mu * batch_size * step_size / num_examples, 0, 1))


def iteration_bound(factor: Number, initial_loss: Number, target: Number) -> Float[Array, "..."]:
    """Steps after which factor^t L0 <= target: log(L0/target) / -log(factor), rounded up.

    At most (beta/mu) log(L0/target) + 1 for gradient descent. Infinite for a factor of 1, and 0
    where the loss is there already. `target` must be positive.
    """
    gap = jnp.log(jnp.asarray(initial_loss) / jnp.asarray(target))
    speed = -jnp.log(jnp.asarray(factor, gap.dtype))
    steps = jnp.where(speed > 0, jnp.ceil(gap / jnp.where(speed > 0, speed, 1)), jnp.inf)
    steps = jnp.maximum(steps, 1)  # A factor of 0 needs one step all the same.
    return jnp.where(gap > 0, steps, 0.0)


def almost_pl(
    losses: Float[Array | np.ndarray, " t"],
    ratios: Float[Array | np.ndarray, " s"],
    smoothness: Number,
    *,
    threshold: Number,
) -> AlmostPL:
    """PL*_eps along a run of gradient descent, and its stopping time.

    Serves where parameters are fewer than outputs: lambda_min(K) = 0 says nothing there, the
    pointwise ratio does as long as the loss is not small. The bound rests on the ratio and the
    smoothness along this run alone.

    Args:
      losses: L at each step.
      ratios: |grad L|^2/(2 L) at each step, as `plprune.conditions.pl_ratio` gives.
      smoothness: beta; the step is 1/beta.
      threshold: eps > 0.

    Raises:
      ValueError: no steps, or lengths that differ.
    """
    if len(losses) == 0 or len(losses) != len(ratios):
        raise ValueError(
            f"losses and ratios must have one length, not 0, got {len(losses)} and {len(ratios)}."
        )
    losses, ratios = jnp.asarray(losses), jnp.asarray(ratios)
    below = losses < jnp.asarray(threshold)
    reached = jnp.any(below)
    first = jnp.where(reached, jnp.argmax(below), len(losses))
    mu = jnp.min(jnp.where(jnp.arange(len(losses)) < first, ratios, jnp.inf))
    factor = descent_rate(mu, smoothness).factor
    bound = jnp.where(first == 0, 0.0, iteration_bound(factor, losses[0], threshold))
    return AlmostPL(mu, jnp.where(reached, first, -1), bound)
