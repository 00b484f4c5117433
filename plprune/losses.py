# SPDX-License-Identifier: Apache-2.0
"""Losses of single examples, and the risk: their mean."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer, Num

Loss = Callable[[Float[Array, "b ..."], Num[Array, "b ..."]], Float[Array, " b"]]


def squared_error(
    outputs: Float[Array | np.ndarray, "b ..."], targets: Float[Array | np.ndarray, "b ..."]
) -> Float[Array, " b"]:
    """Half the squared distance of each example's outputs from its targets.

    Args:
      outputs: Model outputs, [b, c] or [b, ...].
      targets: Regression targets of the same shape; see `one_hot` for classes.

    Returns:
      1/2 sum_c (f_c - y_c)^2 for each example: a sum over outputs, without a mean.

    Raises:
      ValueError: If the shapes differ.
    """
    if outputs.shape != targets.shape:
        raise ValueError(f"targets must have shape {outputs.shape}, got {targets.shape}.")
    errors = optax.losses.squared_error(outputs, targets)
    return jnp.sum(errors.reshape(len(errors), -1), axis=1) / 2


def cross_entropy(
    outputs: Float[Array | np.ndarray, "b ... c"], labels: Integer[Array | np.ndarray, "b ..."]
) -> Float[Array, " b"]:
    """Negative log-probability, in nats, of each example's labels under softmax(outputs).

    Args:
      outputs: Logits; axes between the first and the last are positions of a sequence.
      labels: Integer classes in [0, c). A label outside this range makes its loss NaN.

    Returns:
      One number per example, the mean over its positions.

    Raises:
      ValueError: If the labels' shape is not that of the outputs without the last axis.
    """
    _check_labels(outputs, labels)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return jnp.mean(losses.reshape(len(losses), -1), axis=1)


def masked_cross_entropy(
    outputs: Float[Array | np.ndarray, "b ... c"], labels: Integer[Array | np.ndarray, "b ..."]
) -> Float[Array, " b"]:
    """`cross_entropy` over the positions whose label is not -1, such as masked tokens.

    Args:
      outputs: Logits [b, ..., c].
      labels: Integer classes in [0, c), or -1 where the position does not count.

    Returns:
      One number per example, the mean over its counted positions; 0 if there are none.

    Raises:
      ValueError: If the labels' shape is not that of the outputs without the last axis.
    """
    _check_labels(outputs, labels)
    counted = (labels != -1).reshape(len(labels), -1)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        outputs, jnp.maximum(labels, 0)
    ).reshape(counted.shape)
    total = jnp.sum(jnp.where(counted, losses, 0), axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1)


def risk(
    loss: Loss,
    outputs: Float[Array | np.ndarray, "b ..."],
    labels: Num[Array | np.ndarray, "b ..."],
) -> Float[Array, ""]:
    """Mean over the examples of `loss(outputs, labels)`."""
    return jnp.mean(loss(outputs, labels))


def accuracy(
    outputs: Float[Array | np.ndarray, "b ... c"], labels: Integer[Array | np.ndarray, "b ..."]
) -> Float[Array, ""]:
    """Fraction in [0, 1] of the labels (over examples and positions) whose output is largest.

    Raises:
      ValueError: If the labels' shape is not that of the outputs without the last axis.
    """
    _check_labels(outputs, labels)
    return jnp.mean(jnp.argmax(outputs, axis=-1) == labels, dtype=outputs.dtype)


def error(
    outputs: Float[Array | np.ndarray, "b ... c"], labels: Integer[Array | np.ndarray, "b ..."]
) -> Float[Array, ""]:
    """Fraction of wrong labels, 1 - `accuracy`; raises the same errors."""
    return 1 - accuracy(outputs, labels)


def one_hot(
    labels: Integer[Array | np.ndarray, "..."], num_classes: int, *, offset: float = 0.0
) -> Float[Array, "... c"]:
    """Regression targets of a classifier: 1 - offset at the label and -offset elsewhere.

    With offset 1 / num_classes every target sums to zero.

    Raises:
      ValueError: If `num_classes` is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
    return jax.nn.one_hot(labels, num_classes) - offset


def _check_labels(outputs, labels):
    if labels.shape != outputs.shape[:-1]:
        raise ValueError(f"labels must have shape {outputs.shape[:-1]}, got {labels.shape}.")
