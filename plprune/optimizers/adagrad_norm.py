# SPDX-License-Identifier: Apache-2.0
"""AdaGrad-norm with the largest gradient so far: one step size for all parameters."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from plprune.norms import unit
from plprune.optimizers.scaling import accumulator, check_positive, descend, ratio


class AdagradNormMaxState(NamedTuple):
    """The largest gradient norm c_k and the accumulator b_k: not their squares, which overflow."""

    largest_norm: Float[Array, ""]
    accumulated_norm: Float[Array, ""]


def adagrad_norm_max(
    step_size: ArrayLike, *, initial: ArrayLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with gamma_k = gamma / b_k.

    b_k^2 = b_{k-1}^2 + c_k^2 with c_k^2 = max{c_{k-1}^2, |grad f_i(x)|^2} and c_{-1} = 0: unlike
    AdaGrad-norm's, the accumulator cannot stall, which makes the step decay like 1 / sqrt(k).

    Args:
      step_size: gamma > 0.
      initial: b_{-1} > 0.

    Returns:
      A transformation whose `update` may be given `value` and ignores it. One norm a step, in
      float32 or wider and right at any scale of the gradient.

    Raises:
      ValueError: step_size or initial is not positive.

    References:
      [Islamov 2024]; convergence: `plprune.optimizers.bounds.adagrad_norm_max_bound`.
    """
    check_positive(step_size=step_size, initial=initial)

    def init(params):
        del params
        return AdagradNormMaxState(accumulator(0.0), accumulator(initial))

    def update(updates, state, params=None, **extra):
        del params, extra
        directions, norm = unit(updates)
        norm = accumulator(norm)
        largest = jnp.maximum(state.largest_norm, norm)
        accumulated = jnp.hypot(state.accumulated_norm, largest)
        # A tiny `initial` may underflow; then nothing was seen and nothing moves.
        length = step_size * ratio(norm, accumulated, otherwise=0.0)
        return descend(directions, length, updates), AdagradNormMaxState(largest, accumulated)

    return optax.GradientTransformationExtraArgs(init, update)
