# SPDX-License-Identifier: Apache-2.0
"""Minibatches: every example once an epoch, reproducible, and shuffled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.data import mask_tokens, minibatches

draw = jax.jit(minibatches, static_argnums=(0, 1, 2))


def test_each_epoch_visits_an_example_at_most_once(key):
    epochs = np.asarray(draw(10, 3, 9, key=key)).reshape(3, 9)  # Three whole batches an epoch.
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs.min() >= 0
    assert epochs.max() < 10


def test_whole_epochs_are_permutations_that_differ(key):
    epochs = np.asarray(draw(16, 4, 8, key=key)).reshape(2, 16)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(16), (2, 1)))
    assert not np.array_equal(*epochs)


def test_same_key_same_batches_and_a_longer_run_continues(key):
    long = draw(10, 3, 9, key=key)
    np.testing.assert_array_equal(long, draw(10, 3, 9, key=jax.random.clone(key)))
    np.testing.assert_array_equal(long[:5], draw(10, 3, 5, key=key))
    assert not jnp.array_equal(long, draw(10, 3, 9, key=jax.random.key(1)))


def test_left_over_examples_change_from_epoch_to_epoch(key):
    epochs = np.asarray(draw(10, 3, 30, key=key)).reshape(10, 9)
    assert len({(set(range(10)) - set(epoch.tolist())).pop() for epoch in epochs}) > 1


def test_rejects_impossible_sizes(key):
    with pytest.raises(ValueError, match=r"batch_size must lie in \[1, 5\], got 6"):
        minibatches(5, 6, 1, key=key)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        minibatches(5, 2, 0, key=key)


def test_masked_positions_show_mask_random_or_original_as_8_1_1(key):
    tokens = np.full((200, 500), 3, np.uint8)
    masked = jax.jit(lambda k: mask_tokens(tokens, key=k, num_tokens=1000))(key)
    chosen = np.asarray(masked.labels) != -1
    np.testing.assert_allclose(chosen.mean(), 0.15, atol=0.005)
    assert (np.asarray(masked.labels)[chosen] == 3).all()
    inputs = np.asarray(masked.inputs)
    assert (inputs[~chosen] == 3).all()
    shown = inputs[chosen]
    fractions = [(shown == 1000).mean(), (shown == 3).mean(), np.isin(shown, [3, 1000]).mean()]
    np.testing.assert_allclose(fractions, [0.8, 0.1, 0.9], atol=0.015)
    assert shown.min() >= 0
    assert masked.inputs.dtype == masked.labels.dtype == np.int32


def test_masking_rejects_bad_numbers(key):
    tokens = np.zeros((1, 2), np.int32)
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\], got 0.0"):
        mask_tokens(tokens, key=key, num_tokens=2, rate=0.0)
    with pytest.raises(ValueError, match="num_tokens must be at least 1, got 0"):
        mask_tokens(tokens, key=key, num_tokens=0)
