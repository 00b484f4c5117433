# SPDX-License-Identifier: Apache-2.0
"""What the step-size rules share: descent by one number, and checks of their arguments."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]


def descend(gradients: optax.Updates, step_size: Float[Array, ""]) -> optax.Updates:
    """Updates -step_size * gradient, each leaf in its own dtype."""
    return jax.tree.map(lambda g: (-step_size * g).astype(g.dtype), gradients)


def squared_norm(gradients: optax.Updates) -> Float[Array, ""]:
    """Sum of squares over all leaves."""
    return optax.tree.norm(gradients, squared=True)


def ratio(numerator: Scalar, denominator: Scalar, *, otherwise: Scalar) -> Float[Array, ""]:
    """Quotient of the two, or `otherwise` where the denominator is not positive."""
    safe = jnp.where(denominator > 0, denominator, 1)
    return jnp.where(denominator > 0, numerator / safe, otherwise)


def check_positive(**numbers: float) -> None:
    """Raise ValueError, naming the argument, unless every number is positive."""
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive, got {number}.")
