# SPDX-License-Identifier: Apache-2.0
"""The NGN step: Gauss-Newton on the square root of the loss, without negative losses."""

import jax.numpy as jnp
import optax

from plprune.optimizers.scaling import check_positive, descend, ratio, squared_norm
from plprune.optimizers.sps import StepSizeState


def ngn(max_step_size: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with the non-negative Gauss-Newton step.

    gamma_k = gamma / (1 + gamma |grad f_i(x)|^2 / (2 f_i(x))), which lies in
    [gamma / (1 + gamma L), gamma] where f_i >= 0 is L-smooth. At f_i(x) = 0 with a zero gradient
    it is gamma; a negative loss counts as 0, whose step is 0.

    Args:
      max_step_size: gamma > 0, or a schedule of it; see `inverse_root` for the decreasing NGN.

    Returns:
      A transformation whose `update` needs the loss of the batch as `value`. One inner product a
      step.

    Raises:
      ValueError: A constant max_step_size that is not positive.

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
        twice = 2 * jnp.maximum(value, 0)
        shrink = ratio(twice, twice + gamma * squared_norm(updates), otherwise=1.0)
        step_size = (gamma * shrink).astype(state.step_size.dtype)
        count = optax.safe_increment(state.step)
        return descend(updates, step_size), StepSizeState(count, step_size)

    return optax.GradientTransformationExtraArgs(init, update)


def inverse_root(initial: float) -> optax.Schedule:
    """The schedule initial / sqrt(k + 1), for the decreasing NGN and SGD.

    Raises:
      ValueError: initial is not positive.
    """
    check_positive(initial=initial)
    return lambda step: initial / jnp.sqrt(step + 1.0)
