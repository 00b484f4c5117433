# SPDX-License-Identifier: Apache-2.0
"""Losses against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune import losses

OUTPUTS = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
LABELS = jnp.array([2, 0])


def test_squared_error_is_half_the_squared_distance():
    targets = OUTPUTS - jnp.array([[1.0, 2.0, 2.0], [0.0, 3.0, 4.0]])
    np.testing.assert_allclose(losses.squared_error(OUTPUTS, targets), [4.5, 12.5])


def test_squared_error_gradient_is_the_residual(key):
    targets = jax.random.normal(key, OUTPUTS.shape)
    gradient = jax.grad(lambda f: losses.squared_error(f, targets).sum())(OUTPUTS)
    np.testing.assert_allclose(gradient, OUTPUTS - targets)


def test_squared_error_sums_over_every_output_axis():
    images = jnp.ones((2, 3, 4))
    np.testing.assert_allclose(losses.squared_error(images, 0 * images), [6.0, 6.0])


def test_cross_entropy_is_the_negative_log_probability():
    expected = [np.log(np.exp([1, 2, 3]).sum()) - 3, np.log(3)]
    np.testing.assert_allclose(losses.cross_entropy(OUTPUTS, LABELS), expected)


def test_cross_entropy_stays_finite_for_huge_logits():
    np.testing.assert_allclose(losses.cross_entropy(1e4 * OUTPUTS[:1], LABELS[:1]), [0.0])


def test_cross_entropy_averages_over_positions():
    sequence = jnp.stack([OUTPUTS, OUTPUTS[::-1]])
    labels = jnp.stack([LABELS, LABELS[::-1]])
    expected = np.full(2, np.mean(losses.cross_entropy(OUTPUTS, LABELS)))
    np.testing.assert_allclose(losses.cross_entropy(sequence, labels), expected)


def test_label_outside_the_classes_is_nan_not_a_number():
    for label in (3, -1, -3, -4):
        found = losses.cross_entropy(OUTPUTS, jnp.array([label, 0]))
        np.testing.assert_array_equal(jnp.isnan(found), [True, False])
    found = losses.masked_cross_entropy(OUTPUTS, jnp.array([-1, -2]))
    np.testing.assert_array_equal(jnp.isnan(found), [False, True])


def test_masked_cross_entropy_counts_the_labelled_positions_alone():
    sequence = jnp.stack([OUTPUTS, OUTPUTS, OUTPUTS])
    labels = jnp.array([[2, -1], [2, 0], [-1, -1]])
    single = losses.cross_entropy(OUTPUTS, LABELS)
    expected = [single[0], single.mean(), 0.0]
    np.testing.assert_allclose(losses.masked_cross_entropy(sequence, labels), expected)
    total = jax.jit(jax.grad(lambda f: losses.masked_cross_entropy(f, labels).sum()))
    gradient = total(sequence)
    assert not gradient[2].any()
    assert not gradient[0, 1].any()
    assert jnp.isfinite(gradient).all()


def test_risk_is_the_mean_over_examples():
    expected = np.mean(losses.cross_entropy(OUTPUTS, LABELS))
    np.testing.assert_allclose(losses.risk(losses.cross_entropy, OUTPUTS, LABELS), expected)


def test_accuracy_and_error_add_up_to_one():
    labels = jnp.array([2, 1])
    assert losses.accuracy(OUTPUTS, labels) == 0.5
    assert losses.error(OUTPUTS, labels) == 0.5
    assert losses.accuracy(OUTPUTS[None], labels[None]) == 0.5


def test_one_hot_targets_with_the_class_mean_removed_sum_to_zero():
    targets = losses.one_hot(LABELS, 4, offset=0.25)
    np.testing.assert_allclose(targets.sum(axis=1), [0.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(targets[0], [-0.25, -0.25, 0.75, -0.25])


@pytest.mark.parametrize("loss", [losses.squared_error, losses.cross_entropy])
def test_losses_work_under_jit_and_vmap(loss):
    labels = OUTPUTS[::-1] if loss is losses.squared_error else LABELS
    batched = jax.vmap(jax.jit(loss))(OUTPUTS[:, None], labels[:, None])
    np.testing.assert_allclose(batched[:, 0], loss(OUTPUTS, labels))
    assert loss(OUTPUTS.astype(jnp.float32), labels.astype(labels.dtype)).shape == (2,)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_summed_in_float32(dtype):
    outputs = jnp.array([[300.0, 1e-4, 1.0]] * 2, dtype)
    wide = outputs.astype(jnp.float32)
    targets = (outputs / 3).astype(dtype)
    for found, expected in (
        (losses.squared_error(outputs, targets), losses.squared_error(wide, targets.astype(float))),
        (losses.cross_entropy(outputs, LABELS), losses.cross_entropy(wide, LABELS)),
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.astype(dtype))
    votes = jnp.zeros((70_000, 2), dtype).at[:, 0].set(1)
    share = losses.accuracy(votes, (jnp.arange(70_000) >= 35_000).astype(int))
    np.testing.assert_allclose(share, 0.5)
    assert share.dtype == dtype


def test_the_risk_of_no_examples_and_of_losses_that_count():
    np.testing.assert_array_equal(losses.squared_error(OUTPUTS[:0], OUTPUTS[:0]), [])
    np.testing.assert_array_equal(losses.cross_entropy(OUTPUTS[:0], LABELS[:0]), [])
    missed = losses.risk(lambda outputs, y: outputs.argmax(-1) != y, OUTPUTS, jnp.array([2, 1]))
    np.testing.assert_allclose(missed, 0.5)


def test_rejects_mismatched_shapes():
    with pytest.raises(ValueError, match=r"targets must have shape \(2, 3\), got \(2, 1\)"):
        losses.squared_error(OUTPUTS, OUTPUTS[:, :1])
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(2, 1\)"):
        losses.cross_entropy(OUTPUTS, LABELS[:, None])
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(2, 1\)"):
        losses.accuracy(OUTPUTS, LABELS[:, None])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        losses.one_hot(LABELS, 0)
