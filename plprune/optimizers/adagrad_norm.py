# SPDX-License-Identifier: Apache-2.0
"""AdaGrad-norm with the largest gradient so far: one step size for all parameters."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from plprune.optimizers.scaling import check_positive, descend, ratio, squared_norm


class AdagradNormMaxState(NamedTuple):
    """Squares of the largest gradient norm c_k and of the accumulator b_k."""

    largest: Float[Array, ""]
    accumulated: Float[Array, ""]


def adagrad_norm_max(
    step_size: float, *, initial: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with gamma_k = gamma / b_k.

    b_k^2 = b_{k-1}^2 + c_k^2 with c_k^2 = max{c_{k-1}^2, |grad f_i(x)|^2} and c_{-1} = 0: unlike
    AdaGrad-norm's, the accumulator cannot stall, which makes the step decay like 1 / sqrt(k).

    Args:
      step_size: gamma > 0.
      initial: b_{-1} > 0.

    Returns:
      A transformation whose `update` may be given `value` and ignores it. One inner product a step.

    Raises:
      ValueError: step_size or initial is not positive.

    References:
      [Islamov 2024]; convergence: `plprune.optimizers.bounds.adagrad_norm_max_bound`.
    """
    check_positive(step_size=step_size, initial=initial)

    def init(params):
        del params
        return AdagradNormMaxState(jnp.zeros(()), jnp.asarray(initial**2, float))

    def update(updates, state, params=None, **extra):
        del params, extra
        square = squared_norm(updates).astype(state.largest.dtype)
        largest = jnp.maximum(state.largest, square)
        accumulated = state.accumulated + largest
        # The square of a tiny `initial` may underflow; then nothing was seen and nothing moves.
        rate = ratio(step_size, jnp.sqrt(accumulated), otherwise=0.0)
        return descend(updates, rate), AdagradNormMaxState(largest, accumulated)

    return optax.GradientTransformationExtraArgs(init, update)
