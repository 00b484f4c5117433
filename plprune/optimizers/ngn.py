# SPDX-License-Identifier: Apache-2.0
"""The NGN step: Gauss-Newton on the square root of the loss, without negative losses."""

import jax.numpy as jnp
import optax

from plprune.norms import unit
from plprune.optimizers.scaling import accumulator, check_positive, descend, loss_value, ratio
from plprune.optimizers.sps import StepSizeState


def ngn(max_step_size: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with the non-negative Gauss-Newton step.

    gamma_k = gamma / (1 + gamma |grad f_i(x)|^2 / (2 f_i(x))), which lies in
    [gamma / (1 + gamma L), gamma] where f_i >= 0 is L-smooth. At f_i(x) = 0 with a zero gradient
    it is gamma; a negative loss counts as 0, whose step is 0.

    Args:
      max_step_size: gamma > 0, or a schedule of it; see `inverse_root` for the decreasing NGN.

    Returns:
      A transformation whose `update` needs the loss of the batch as `value`. One norm a step, in
      float32 or wider and right at any scale of the gradient; a NaN of either makes the step NaN.

    Raises:
      ValueError: A constant max_step_size that is not positive; `update` with a `value` that is not
        one number.

    References:
      [Orvieto 2024]; convergence: `plprune.optimizers.bounds.ngn_bound`.
    """
    if not callable(max_step_size):
        check_positive(max_step_size=max_step_size)

    def init(params):
        del params
        return StepSizeState(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update(updates, state, params=None, *, value, **extra):
        del params, extra
        gamma = max_step_size(state.step) if callable(max_step_size) else max_step_size
        gamma, (directions, norm) = accumulator(gamma), unit(updates)
        norm, twice = accumulator(norm), 2 * jnp.maximum(loss_value(value), 0)
        # Norm over twice the loss; a zero gradient has the step gamma, whatever the loss.
        slope = jnp.where(norm == 0, 0, ratio(norm, twice, otherwise=jnp.inf))
        step_size = gamma / (1 + gamma * norm * slope)
        # The length is a harmonic sum, which is in range though the squared norm be not.
        length = 1 / (ratio(1.0, gamma * norm, otherwise=jnp.inf) + slope)
        count = optax.safe_increment(state.step)
        return descend(directions, length, updates), StepSizeState(count, step_size)

    return optax.GradientTransformationExtraArgs(init, update)


def inverse_root(initial: float) -> optax.Schedule:
    """The schedule initial / sqrt(k + 1), for the decreasing NGN and SGD.

    Raises:
      ValueError: initial is not positive.
    """
    check_positive(initial=initial)
    return lambda step: initial / jnp.sqrt(step + 1.0)
