# SPDX-License-Identifier: Apache-2.0
"""Stochastic Polyak steps: the loss over the squared gradient, capped or decreasing."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from plprune.norms import unit
from plprune.optimizers.scaling import accumulator, capped, check_positive, loss_value, ratio


class StepSizeState(NamedTuple):
    """The step count, and the step size of the last step for people and plots."""

    step: Int[Array, ""]
    step_size: Float[Array, ""]


def sps_max(
    *, c: ArrayLike = 0.5, max_step_size: ArrayLike = 1.0, lower_bound: ArrayLike = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with the capped stochastic Polyak step.

    gamma_k = min{(f_i(x) - f_i*) / (c |grad f_i(x)|^2), max_step_size}, at least
    min{1 / (2 c L), max_step_size} where f_i is L-smooth. Where the gradient vanishes the cap is
    taken; the update is then zero.

    Args:
      c: Divides the Polyak step, > 0; the theory wants c > 1 / (2 (alpha - beta)).
      max_step_size: The cap gamma_b, > 0.
      lower_bound: f_i*, or any number below it. A loss below it gives step 0.

    Returns:
      A transformation whose `update` needs the loss of the batch as `value`. One norm a step, in
      float32 or wider and right at any scale of the gradient; a NaN of either makes the step NaN.

    Raises:
      ValueError: c or max_step_size is not positive; `update` with a `value` that is not one
        number.

    References:
      [Loizou 2021]; convergence: `plprune.optimizers.bounds.sps_max_bound`.
    """
    check_positive(c=c, max_step_size=max_step_size)

    def init(params):
        del params
        return StepSizeState(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update(updates, state, params=None, *, value, **extra):
        del params, extra
        directions, norm = unit(updates)
        length, polyak = _polyak(value, lower_bound, norm, c)
        cap = accumulator(max_step_size)
        step_size = jnp.minimum(polyak, cap)
        updates = capped(updates, directions, length, cap, polyak > cap)
        return updates, StepSizeState(optax.safe_increment(state.step), step_size)

    return optax.GradientTransformationExtraArgs(init, update)


def dec_sps(
    *, c: ArrayLike = 1.0, max_step_size: ArrayLike = 1.0, lower_bound: ArrayLike = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with the decreasing stochastic Polyak step.

    gamma_k = min{(f_i(x) - f_i*) / |grad f_i(x)|^2, c_{k-1} gamma_{k-1}} / c_k with
    c_k = c sqrt(k + 1), c_{-1} = c_0 and gamma_{-1} = max_step_size: it never increases. A loss
    equal to its lower bound with a nonzero gradient therefore ends all motion.

    Args:
      c: c_0 > 0; the theory wants c > 1 / (2 (alpha - beta)).
      max_step_size: gamma_{-1} > 0.
      lower_bound: f_i*, or any number below it. A loss below it gives step 0.

    Returns:
      A transformation whose `update` needs the loss of the batch as `value`. One norm a step, in
      float32 or wider and right at any scale of the gradient; a NaN of either makes the step NaN.

    Raises:
      ValueError: c or max_step_size is not positive; `update` with a `value` that is not one
        number.

    References:
      [Orvieto 2022]; convergence: `plprune.optimizers.bounds.dec_sps_bound`.
    """
    check_positive(c=c, max_step_size=max_step_size)

    def init(params):
        del params
        return StepSizeState(jnp.zeros((), jnp.int32), accumulator(max_step_size))

    def update(updates, state, params=None, *, value, **extra):
        del params, extra
        count = accumulator(state.step)
        now, before = c * jnp.sqrt(count + 1), c * jnp.sqrt(jnp.maximum(count, 1))
        directions, norm = unit(updates)
        length, polyak = _polyak(value, lower_bound, norm, 1.0)
        cap = before * state.step_size
        step_size = jnp.minimum(polyak, cap) / now
        updates = capped(updates, directions, length / now, cap / now, polyak > cap)
        return updates, StepSizeState(optax.safe_increment(state.step), step_size)

    return optax.GradientTransformationExtraArgs(init, update)


def _polyak(value, lower_bound, norm, c):
    """Length of the uncapped step, and its size: infinite where the gradient vanishes."""
    norm = accumulator(norm)
    excess = jnp.maximum(loss_value(value) - lower_bound, 0) / c
    length = ratio(excess, norm, otherwise=jnp.inf)
    return length, ratio(length, norm, otherwise=jnp.inf)
