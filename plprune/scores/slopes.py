# SPDX-License-Identifier: Apache-2.0
"""Derivatives in gates, which hide no NaN of what they are the derivatives of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plprune.scores.slices import NodeScores


def slopes(objective: Callable[[dict[str, Array]], Array], factors: dict[str, Array]) -> NodeScores:
    """The gradient of a scalar, NaN everywhere where the scalar is NaN.

    Rectifiers and losses have finite derivatives where their value is no number: a row of NaN, or a
    label beyond the classes, would count for nothing, silently.
    """
    value, gradient = jax.value_and_grad(objective)(factors)
    return unless_nan(value, gradient)


def unless_nan(value: Array, scores: NodeScores) -> NodeScores:
    """The scores, or NaN for all of them where any of the values is NaN."""
    return jax.tree.map(lambda s: jnp.where(jnp.isnan(value).any(), jnp.nan, s), scores)
