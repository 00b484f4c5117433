# SPDX-License-Identifier: Apache-2.0
"""Condition numbers of random Jacobians against their known mean and bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import jacobian_log_condition, log_condition_bound, log_conditions


def test_random_jacobians_have_the_known_mean_below_the_bound(key):
    values = jax.jit(lambda k: log_conditions(10, 12, key=k, num_draws=1000))(key)
    error = values.std(ddof=1) / 1000**0.5
    assert abs(values.mean() - 4.90) < 4 * error < 0.2
    np.testing.assert_allclose(log_condition_bound(10, 12), 2 * np.log(4) + 5)
    assert values.mean() < log_condition_bound(10, 12)


def test_log_condition_of_known_singular_values():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 3)))[0] for size in (5, 4))
    wide = (left * np.array([8.0, 2.0, 1.0])) @ right.T  # Rank 3 of 4.
    np.testing.assert_allclose(jacobian_log_condition(jnp.asarray(wide @ right)), 2 * np.log(8.0))
    assert np.isinf(jacobian_log_condition(jnp.asarray(wide)))
    assert np.isinf(jacobian_log_condition(jnp.zeros((5, 4))))


def test_rejects_bad_arguments(key):
    with pytest.raises(ValueError, match="num_parameters must be at least num_outputs = 5, got 4"):
        log_condition_bound(5, 4)
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        log_conditions(0, 4, key=key, num_draws=1)
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        log_conditions(2, 4, key=key, num_draws=0)


def test_log_condition_at_every_scale_and_precision():
    jacobian = jnp.diag(jnp.array([1.0, 0.5, 0.25], jnp.float32))
    for matrix in (jacobian, 1e-30 * jacobian, 1e30 * jacobian, jacobian.astype(jnp.bfloat16)):
        np.testing.assert_allclose(jacobian_log_condition(matrix), 4 * np.log(2), rtol=1e-5)
    nearly = jnp.diag(jnp.array([1.0, 1e-2], jnp.bfloat16))
    assert np.isinf(jacobian_log_condition(nearly))
    with pytest.raises(ValueError, match=r"not be empty, got shape \(0, 3\)"):
        jacobian_log_condition(jnp.zeros((0, 3)))
