# SPDX-License-Identifier: Apache-2.0
"""The three numbers of the condition for every example at once, at a chosen point."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.norms import raised_for
from plprune.types import Params


class Points(NamedTuple):
    """What the condition asks of each example, ready for `smallest_beta(alpha, *points)`."""

    inner: Float[Array, "..."]  # <grad f_i(x), x - x_p>
    gap: Float[Array, "..."]  # f_i(x) - f_i(x_p)
    excess: Float[Array, "..."]  # f_i(x) - f_i*


def points_at(
    losses: Callable[[Params], Float[Array, " n"]],
    params: Params,
    projection: Params,
    minima: Float[Array, " n"] | float = 0.0,
) -> Points:
    """`Points` [n] of every f_i at x = params.

    One forward-mode derivative along x - x_p gives all n inner products: no per-example gradient is
    formed. Costs about three evaluations of `losses`. Half-precision parameters are raised to
    float32, unless `losses` refuses them.

    Args:
      losses: x -> (f_1(x), ..., f_n(x)).
      params: x.
      projection: x_p, the nearest minimiser of the mean, or what stands for it.
      minima: f_i*, or lower bounds.
    """
    params, projection = raised_for(lambda p, _: losses(p), params, projection)
    direction = jax.tree.map(jnp.subtract, params, projection)
    values, inner = jax.jvp(losses, (params,), (direction,))
    return Points(inner, values - losses(projection), values - minima)
