# SPDX-License-Identifier: Apache-2.0
"""Ratios whose smallest value over the points is the constant of a condition.

Each works elementwise, so that it can be plotted along a run. Where a ratio says nothing (its
denominator vanishes) it is inf, which leaves the minimum alone. Half-precision numbers are computed
with in float32, which is what comes back.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plprune.norms import raised

Numbers = Float[Array | np.ndarray, "..."]


def aiming_cosine(inner: Numbers, gradient_norm: Numbers, distance: Numbers) -> Numbers:
    """Cosine of the angle between grad f(x) and x - x_p, in [-1, 1].

    0 where either vanishes: then <grad f(x), x - x_p> = 0, and there is no angle. Positive where a
    small gradient step leads towards x_p.

    Args:
      inner: <grad f(x), x - x_p>.
      gradient_norm: |grad f(x)|.
      distance: |x - x_p|.
    """
    inner, norm, distance = (jnp.asarray(raised(a)) for a in (inner, gradient_norm, distance))
    says = (norm > 0) & (distance > 0)
    # Divided twice: the product of both, by which XLA would divide once, may be out of range.
    cosine = jax.lax.optimization_barrier(jnp.where(says, inner, 0) / jnp.where(says, norm, 1))
    return jnp.clip(cosine / jnp.where(says, distance, 1), -1, 1)


def aiming_ratio(inner: Numbers, excess: Numbers) -> Numbers:
    """<grad f(x), x - x_p> / (f(x) - f*), whose minimum is the aiming constant theta [Liu 2023]."""
    return _ratio(inner, excess)


def quasar_ratio(inner: Numbers, gap: Numbers) -> Numbers:
    """<grad f(x), x - x_p> / (f(x) - f(x_p)), for quasar-convexity [Hardt 2018].

    With x_p the only minimiser, the minimum is the quasar-convexity constant theta. Points that
    are no higher than x_p say nothing.
    """
    return _ratio(inner, gap)


def pl_ratio(gradient_norm: Numbers, excess: Numbers, *, power: float = 2.0) -> Numbers:
    """|grad f(x)|^2 / (2 (f(x) - f*)^(2/power)), whose minimum is the relaxed PL constant mu.

    Power 2 is the PL condition |grad f|^2 >= 2 mu (f - f*); the relaxed condition is
    |grad f|^power >= (2 mu)^(power/2) (f - f*).

    Raises:
      ValueError: power is outside [1, 2].
    """
    if not 1 <= power <= 2:
        raise ValueError(f"power must lie in [1, 2], got {power}.")
    excess = jnp.maximum(jnp.asarray(raised(excess)), 0)
    # The root of the quotient, squared: the squared norm may be out of range.
    return jnp.square(_ratio(gradient_norm, 2**0.5 * excess ** (1 / power)))


def _ratio(numerator, denominator):
    numerator, denominator = jnp.asarray(raised(numerator)), jnp.asarray(raised(denominator))
    says = denominator > 0
    return jnp.where(says, numerator / jnp.where(says, denominator, 1), jnp.inf)
