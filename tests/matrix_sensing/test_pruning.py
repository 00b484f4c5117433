# SPDX-License-Identifier: Apache-2.0
"""Columns kept and lost, and the closed forms that predict them."""

import jax.numpy as jnp
import numpy as np
import pytest

from plprune import matrix_sensing as ms
from plprune.optimizers.group_lasso import penalty_factors

COLUMNS = jnp.array([[3.0, 0.0, 0.1, 0.0], [4.0, 1.0, 0.0, 2.5]])  # Norms 5, 1, .1, 2.5.


def test_prune_keeps_the_columns_above_the_threshold():
    np.testing.assert_allclose(ms.column_norms(COLUMNS), [5.0, 1.0, 0.1, 2.5])
    np.testing.assert_array_equal(ms.prune(COLUMNS, 0.1), COLUMNS[:, [0, 1, 3]])
    assert ms.prune(COLUMNS, 9.0).shape == (2, 0)


def test_zero_below_is_prune_with_the_shape_kept():
    zeroed = ms.zero_below(COLUMNS, 0.1)
    np.testing.assert_array_equal(zeroed, COLUMNS.at[:, 2].set(0.0))
    problem = ms.Problem(COLUMNS[:, :1], ms.GAUSSIAN)
    np.testing.assert_array_equal(ms.gradient(problem, zeroed)[:, 2], 0.0)
    np.testing.assert_allclose(
        ms.gradient(problem, zeroed)[:, [0, 1, 3]], ms.gradient(problem, ms.prune(COLUMNS, 0.1))
    )


def test_keep_largest_keeps_their_order():
    np.testing.assert_array_equal(ms.keep_largest(COLUMNS, 2), COLUMNS[:, [0, 3]])
    with pytest.raises(ValueError, match=r"count must lie in \[1, k = 4\], got 5"):
        ms.keep_largest(COLUMNS, 5)


def test_share_above_counts_the_largest_itself():
    norms = ms.column_norms(COLUMNS)
    for fraction, share in [(0.0, 1.0), (0.5, 0.5), (0.51, 0.25), (1.0, 0.25)]:
        assert float(ms.share_above(norms, fraction)) == share


@pytest.mark.parametrize("form", ["rational", "convex"])
def test_at_the_threshold_the_pull_is_nearly_that_of_the_norm(form):
    norm = ms.threshold(1e-3)
    np.testing.assert_allclose(norm, 2 * np.sqrt(1e-3))
    pull = norm * penalty_factors(jnp.array([norm**2]), beta=1e-3, form=form)
    assert pull[0] > 0.89


@pytest.mark.parametrize("form", ["rational", "convex"])
def test_escape_bound_balances_growth_and_shrinkage_at_zero(form):
    gain, beta = 0.8, 1e-2
    strength = ms.escape_bound(gain, beta=beta, form=form)
    shrinkage = strength * penalty_factors(jnp.zeros(1), beta=beta, form=form)
    np.testing.assert_allclose(shrinkage, 4 * gain)


def test_spurious_bound_is_where_noise_stops_holding_up_a_column():
    d, n, noise = 20, 1500, 0.5
    strength = ms.spurious_bound(d, n, noise)
    rate = 4 * noise * np.sqrt(2 * d / n)
    t = np.linspace(0, 1, 100_001)
    push = rate * t - 4 * t**3
    np.testing.assert_allclose(strength, push.max(), rtol=1e-6)
    # The rate is the top eigenvalue of the noise's part of the gradient at 0.
    rng = np.random.default_rng(0)
    a = np.tensordot(noise * rng.normal(size=n), rng.normal(size=(n, d, d)), 1)
    np.testing.assert_allclose(np.linalg.eigvalsh((a + a.T) / 2)[-1] * 4 / n, rate, rtol=0.15)


def test_stationary_norm_solves_the_stationarity_condition_to_first_order():
    sigma = jnp.array([1.0, 0.6])
    for strength in (1e-2, 1e-3):
        t = ms.stationary_norm(sigma, strength)
        residual = 4 * (t**2 - sigma**2) * t + strength
        assert (jnp.abs(residual) < strength**2).all()


def test_stationary_bias_of_the_paper_size_setting():
    np.testing.assert_allclose(ms.stationary_bias(jnp.ones(4), 0.02), 0.01)
    norms = ms.stationary_norm(jnp.ones(4), 0.02)
    gap = jnp.linalg.norm(norms**2 - 1)
    np.testing.assert_allclose(gap, ms.stationary_bias(jnp.ones(4), 0.02), rtol=1e-12)
