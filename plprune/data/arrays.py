# SPDX-License-Identifier: Apache-2.0
"""Data sets as arrays: their types, checks and standardisation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8


class Dataset(NamedTuple):
    """Labelled images. `title` is what tables and figures call the set."""

    images: Float[np.ndarray, "n h w channels"]  # From `load`: in [0, 1].
    labels: Int[np.ndarray, " n"]  # Classes in [0, num_classes).
    num_classes: int
    name: str
    title: str  # Says so where the copy is not lossless.
    notes: str  # What is known of the copy; empty for a faithful one.


class Text(NamedTuple):
    """A text as one long sequence of bytes."""

    tokens: UInt8[np.ndarray, " n"]
    num_tokens: int  # Size of the vocabulary.
    name: str
    title: str
    notes: str


class Sequences(NamedTuple):
    """Windows of a text; the target of a position is the token that follows it."""

    inputs: Int[np.ndarray, "n length"]
    targets: Int[np.ndarray, "n length"]


class Standardization(NamedTuple):
    """Channel means and standard deviations of a training set."""

    mean: Float[np.ndarray, " channels"]
    deviation: Float[np.ndarray, " channels"]  # 1 for a constant channel.


def check(dataset: Dataset) -> None:
    """Raise ValueError unless images are finite and shaped alike, and labels are classes."""
    images, labels = np.asarray(dataset.images), np.asarray(dataset.labels)
    if images.ndim < 2 or not images.size:
        raise ValueError(f"images must have shape [n, ...] with n >= 1, got {images.shape}.")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape {images.shape[:1]}, got {labels.shape}.")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images must be floating point, got {images.dtype}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}.")
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        raise ValueError(f"images must be finite; image {int(finite.argmin())} is not.")
    inside = (labels >= 0) & (labels < dataset.num_classes)
    if not inside.all():
        first = int(inside.argmin())
        raise ValueError(
            f"labels must lie in [0, {dataset.num_classes}), got {labels[first]} at {first}."
        )


def standardization(dataset: Dataset) -> Standardization:
    """Channel statistics of a training set, over its examples and positions, in float64."""
    images = np.asarray(dataset.images)
    axes = tuple(range(images.ndim - 1))
    mean = images.mean(axis=axes, dtype=np.float64)
    deviation = images.std(axis=axes, dtype=np.float64)
    # Rounding leaves a constant channel a deviation of order eps, not zero.
    constant = deviation <= 100 * np.finfo(images.dtype).eps * np.abs(mean)
    return Standardization(mean, np.where(constant, 1.0, deviation))


def standardize(dataset: Dataset, statistics: Standardization) -> Dataset:
    """The data set with (images - mean) / deviation; take `statistics` from the training set."""
    dtype = dataset.images.dtype
    shifted = dataset.images - statistics.mean.astype(dtype)
    return dataset._replace(images=shifted / statistics.deviation.astype(dtype))


def sequences(text: Text, length: int) -> Sequences:
    """Disjoint windows of `length` tokens and their next tokens; an incomplete rest is dropped.

    Raises:
      ValueError: If `length` does not lie in [1, n - 1].
    """
    if not 1 <= length < len(text.tokens):
        raise ValueError(f"length must lie in [1, {len(text.tokens) - 1}], got {length}.")
    tokens = text.tokens.astype(np.int32)
    count = (len(tokens) - 1) // length
    inputs, targets = tokens[: count * length], tokens[1 : count * length + 1]
    return Sequences(inputs.reshape(count, length), targets.reshape(count, length))
