# SPDX-License-Identifier: Apache-2.0
"""What the step-size rules share: updates of a given step or length, and checks of arguments."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from plprune.norms import raised
from plprune.scores.probes import known

Scalar = Float[Array, ""]


def descend(gradients: optax.Updates, step_size: ArrayLike, like: optax.Updates) -> optax.Updates:
    """Updates -step_size * gradient, each leaf in the dtype of its leaf of `like`.

    The product is taken in float32 or wider; leaves that are not floating do not move.
    """

    def update(gradient, leaf):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            return jnp.zeros_like(leaf)
        wide = jnp.asarray(raised(gradient))
        return (-jnp.asarray(step_size).astype(wide.dtype) * wide).astype(leaf.dtype)

    return jax.tree.map(update, gradients, like)


def capped(
    gradients: optax.Updates,
    directions: optax.Updates,
    length: Scalar,
    cap: Scalar,
    is_capped: Bool[Array, ""],
) -> optax.Updates:
    """The step `cap` along the gradients where it is smaller, else `length` along directions.

    A step is a length over a norm: it can be out of range while the length is not.
    """
    # Neither branch may make a NaN that nobody reads.
    by_cap = descend(gradients, jnp.where(is_capped, cap, 0), gradients)
    by_length = descend(directions, jnp.where(is_capped, 0, length), gradients)
    return jax.tree.map(lambda a, b: jnp.where(is_capped, a, b), by_cap, by_length)


def ratio(numerator: ArrayLike, denominator: ArrayLike, *, otherwise: ArrayLike) -> Array:
    """Quotient of the two, or `otherwise` where the denominator is zero."""
    zero = denominator == 0
    return jnp.where(zero, otherwise, numerator / jnp.where(zero, 1, denominator))


def loss_value(value: ArrayLike) -> Scalar:
    """The loss as a scalar of the default float type, or of its own where that is wider.

    Raises:
      ValueError: it is not one number.
    """
    value = jnp.asarray(value)
    if value.size != 1:
        raise ValueError(
            f"value must be the loss of the batch, one number, got shape {value.shape}."
        )
    return accumulator(value.reshape(()))


def accumulator(number: ArrayLike) -> Scalar:
    """A copy of a number in the default float type, which is what states are kept in."""
    # A copy: an optimiser's state may be donated, and the caller's array is not ours to give away.
    return jnp.array(number, float, copy=True)


def check_positive(**numbers: ArrayLike) -> None:
    """Raise ValueError, naming the argument, unless every number is positive.

    A number that is traced, as by `optax.inject_hyperparams`, is the caller's responsibility.
    """
    for name, number in numbers.items():
        value = known(number)
        if value is not None and not (value > 0).all():
            raise ValueError(f"{name} must be positive, got {number}.")
