# SPDX-License-Identifier: Apache-2.0
"""Checks, standardisation and windows of data sets."""

import numpy as np
import pytest

from plprune.data import Dataset, Text, check, sequences, standardization, standardize

IMAGES = np.random.default_rng(0).normal(3, 2, (50, 4, 4, 2)).astype(np.float32)


def dataset(images=IMAGES, labels=None, num_classes=5):
    labels = np.arange(len(images)) % 5 if labels is None else np.asarray(labels)
    return Dataset(images, labels, num_classes, "toy", "toy", "")


def test_training_set_gets_mean_zero_and_deviation_one_per_channel():
    images = IMAGES * np.array([1, 100], np.float32)
    result = standardize(dataset(images), standardization(dataset(images))).images
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, rtol=1e-5)
    assert result.dtype == np.float32


def test_statistics_come_from_the_set_they_are_given():
    train, test = dataset(IMAGES), dataset(IMAGES + 10)
    statistics = standardization(train)
    expected = (test.images - statistics.mean) / statistics.deviation
    np.testing.assert_allclose(standardize(test, statistics).images, expected, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_channel_is_shifted_not_divided_by_rounding(value):
    flat = dataset(np.full_like(IMAGES, value))
    assert standardization(flat).deviation.tolist() == [1, 1]
    assert np.abs(standardize(flat, standardization(flat)).images).max() <= 1e-6 * max(value, 1)


def test_sequences_predict_the_next_token():
    text = Text(np.arange(10, dtype=np.uint8), 256, "toy", "toy", "")
    windows = sequences(text, 4)
    assert windows.inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows.targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(ValueError, match=r"\[1, 9\], got 10"):
        sequences(text, 10)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            dataset(np.zeros((0, 2, 2, 1), np.float32)),
            r"\[n, ...\] with n >= 1, got \(0, 2, 2, 1\)",
        ),
        (dataset(np.zeros(3, np.float32)), r"got \(3,\)"),
        (dataset(labels=np.zeros(49, int)), r"labels must have shape \(50,\), got \(49,\)"),
        (dataset(labels=np.zeros((50, 1), int)), r"got \(50, 1\)"),
        (dataset((255 * IMAGES).astype(np.uint8)), "floating point, got uint8"),
        (dataset(labels=np.zeros(50)), "integers, got float64"),
        (dataset(np.where(IMAGES[7, 0, 0, 0] == IMAGES, np.nan, IMAGES)), "image 7 is not"),
        (dataset(np.where(IMAGES[7, 0, 0, 0] == IMAGES, np.inf, IMAGES)), "image 7 is not"),
        (dataset(labels=np.r_[np.zeros(49, int), 5]), r"\[0, 5\), got 5 at 49"),
        (dataset(labels=np.r_[-1, np.zeros(49, int)]), r"\[0, 5\), got -1 at 0"),
    ],
)
def test_rejects_bad_data_with_the_reason(bad, message):
    check(dataset())
    with pytest.raises(ValueError, match=message):
        check(bad)
