# SPDX-License-Identifier: Apache-2.0
"""Normalised gradient descent with momentum: steps of a given length."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from plprune.norms import at_least_float32, is_real, unit
from plprune.optimizers.scaling import check_positive, descend
from plprune.scores.probes import known


class NsgdState(NamedTuple):
    """The step, for schedules, and the running mean of gradients, in float32 or wider."""

    step: Int[Array, ""]
    momentum: optax.Updates


def nsgd(
    step_size: optax.ScalarOrSchedule, *, momentum: ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Steps of length `step_size` against a running mean of gradients.

    m_k = momentum m_{k-1} + (1 - momentum) g_k with m_{-1} = g_0, and x moves by
    -step_size m_k / |m_k|; it stays where m_k = 0.

    Args:
      step_size: Length of a step, > 0, or a schedule of it.
      momentum: In [0, 1); 0 normalises the gradient itself.

    Returns:
      A transformation whose `update` may be given `value` and ignores it. The norm is taken in
      float32 or wider and right at any scale of the gradient.

    Raises:
      ValueError: A constant step_size that is not positive, or momentum outside [0, 1).

    References:
      [Cutkosky 2020]; convergence: `plprune.optimizers.bounds.nsgd_bound`.
    """
    if not callable(step_size):
        check_positive(step_size=step_size)
    share = known(momentum)
    if share is not None and not 0 <= share < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}.")

    def init(params):
        return NsgdState(jnp.zeros((), jnp.int32), jax.tree.map(_zeros, params))

    def update(updates, state, params=None, **extra):
        del params, extra
        kept = jnp.where(state.step == 0, 0.0, momentum)  # The first mean is the first gradient.
        mean = jax.tree.map(lambda m, g: _mean(kept, m, g), state.momentum, updates)
        length = step_size(state.step) if callable(step_size) else step_size
        moved = descend(unit(mean)[0], length, updates)
        return moved, NsgdState(optax.safe_increment(state.step), mean)

    return optax.GradientTransformationExtraArgs(init, update)


def _zeros(leaf):
    """Of the leaf's shape; a running mean of half-precision gradients is kept in float32."""
    if not is_real(leaf):
        return jnp.zeros_like(leaf)
    return jnp.zeros_like(leaf, dtype=at_least_float32(jnp.result_type(leaf)))


def _mean(kept, mean, gradient):
    if not jnp.issubdtype(jnp.result_type(mean), jnp.inexact):
        return mean
    kept, gradient = kept.astype(mean.dtype), jnp.asarray(gradient, mean.dtype)
    return kept * mean + (1 - kept) * gradient
