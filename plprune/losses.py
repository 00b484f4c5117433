# SPDX-License-Identifier: Apache-2.0
"""Losses of single examples, and the risk: their mean.

Half-precision outputs are computed with in float32; losses come back in the outputs' dtype.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer, Num

from plprune.norms import at_least_float32, raised

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
    dtype = jnp.result_type(outputs, targets)
    errors = optax.losses.squared_error(raised(outputs), raised(targets))
    return _narrowed(jnp.sum(_rows(errors), axis=1) / 2, dtype)


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
      ValueError: If the labels' shape is not that of the outputs without the last axis, or they are
        not integers.
    """
    _check_classes(outputs, labels)
    losses = _cross_entropies(outputs, labels)
    return _narrowed(jnp.mean(_rows(losses), axis=1), outputs.dtype)


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
      ValueError: If the labels' shape is not that of the outputs without the last axis, or they are
        not integers.
    """
    _check_classes(outputs, labels)
    counted = _rows(jnp.asarray(labels) != -1)
    classes = jnp.where(labels == -1, 0, labels)
    losses = _cross_entropies(outputs, classes).reshape(counted.shape)
    total = jnp.sum(jnp.where(counted, losses, 0), axis=1)
    number = jnp.maximum(jnp.sum(counted, axis=1), 1).astype(total.dtype)
    return _narrowed(total / number, outputs.dtype)


def _cross_entropies(outputs, labels):
    """Of each position, in float32 or wider; NaN for a label outside [0, c)."""
    wide = jnp.asarray(raised(outputs))
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(wide, labels)
    return jnp.where(labels < 0, jnp.nan, losses)  # A negative index would count from the end.


def _rows(numbers):
    """[b, n], of no examples too."""
    return numbers.reshape(numbers.shape[0], math.prod(numbers.shape[1:]))


def _narrowed(losses, dtype):
    """Losses in the dtype of the outputs, wherever they were summed."""
    return losses.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else losses


def risk(
    loss: Loss,
    outputs: Float[Array | np.ndarray, "b ..."],
    labels: Num[Array | np.ndarray, "b ..."],
) -> Float[Array, ""]:
    """Mean over the examples of `loss(outputs, labels)`."""
    each = jnp.asarray(loss(outputs, labels))
    return _narrowed(jnp.mean(raised(each)), each.dtype)


def accuracy(
    outputs: Float[Array | np.ndarray, "b ... c"], labels: Integer[Array | np.ndarray, "b ..."]
) -> Float[Array, ""]:
    """Fraction in [0, 1] of the labels (over examples and positions) whose output is largest.

    Raises:
      ValueError: If the labels' shape is not that of the outputs without the last axis.
    """
    _check_labels(outputs, labels)
    right = jnp.argmax(outputs, axis=-1) == labels
    # In half precision the number of labels alone can overflow.
    return jnp.mean(right, dtype=at_least_float32(outputs.dtype)).astype(outputs.dtype)


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


def _check_classes(outputs, labels):
    _check_labels(outputs, labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integer classes, got {labels.dtype}.")


def _check_labels(outputs, labels):
    if labels.shape != outputs.shape[:-1]:
        raise ValueError(f"labels must have shape {outputs.shape[:-1]}, got {labels.shape}.")
