# SPDX-License-Identifier: Apache-2.0
"""Rates and step counts on quadratics, where they are exact."""

import jax
import numpy as np
import pytest

from plprune.constants import almost_pl, descent_rate, iteration_bound, stochastic_rate


def test_descent_on_a_quadratic_never_beats_nor_breaks_the_rate():
    """L = (mu x^2 + beta y^2)/2: the slow direction shrinks by (1 - mu/beta)^2 a step."""
    rate = descent_rate(0.5, 4.0)
    np.testing.assert_allclose(rate, (0.25, 1 - 0.125))
    point, curvature = np.array([1.0, 2.0]), np.array([0.5, 4.0])
    start = (curvature * point**2).sum() / 2
    for step in range(1, 50):
        point = point - rate.step_size * curvature * point
        assert (curvature * point**2).sum() / 2 <= rate.factor**step * start * (1 + 1e-12)
    assert descent_rate(0.0, 4.0).factor == 1


def test_stochastic_rate_holds_for_the_exact_expectation():
    """Least squares: E L(w - eta G) over all batches of one and of two examples, enumerated."""
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(4, 6)), rng.normal(size=6)
    residual = rows @ weights
    spectrum = np.linalg.svd(rows)[1] ** 2
    each = residual[:, None] * rows
    worst = (rows**2).sum(1).max()
    for size in (1, 2):
        rate = stochastic_rate(
            spectrum.min(), spectrum.max(), worst, num_examples=4, batch_size=size
        )
        batches = np.array(np.meshgrid(*[np.arange(4)] * size)).reshape(size, -1)
        moved = weights - float(rate.step_size) * each[batches].sum(0)
        expected = ((moved @ rows.T) ** 2).sum(1).mean() / 2
        assert expected <= rate.factor * (residual**2).sum() / 2
    large = stochastic_rate(1.0, 2.0, 2.0, num_examples=4, batch_size=10**9)
    np.testing.assert_allclose(large.factor, 1 - 1.0 / 2.0, rtol=1e-6)  # That of descent.


def test_iteration_bound_is_the_first_step_below_the_target():
    steps = iteration_bound(0.9, 5.0, 0.01)
    assert 0.9**steps * 5 <= 0.01 < 0.9 ** (steps - 1) * 5
    assert steps <= 10 * np.log(5 / 0.01) + 1
    assert iteration_bound(0.9, 0.01, 5.0) == 0
    assert np.isinf(iteration_bound(1.0, 5.0, 0.01))
    assert iteration_bound(0.0, 5.0, 0.01) == 1


def test_stopping_time_of_a_loss_that_levels_off():
    """Ratio .4 while L >= 1; afterwards it collapses, which the threshold must hide."""
    losses, ratios = 2.0 * 0.8 ** np.arange(30.0), np.where(np.arange(30) < 4, 0.4, 1e-6)
    found = jax.jit(lambda a, b: almost_pl(a, b, 2.0, threshold=1.0))(losses, ratios)
    np.testing.assert_allclose(found.pl_constant, 0.4)
    assert found.stopping_time == 4  # 2 * .8^3 = 1.02, 2 * .8^4 = .82.
    assert found.stopping_time <= found.bound == 4
    never = almost_pl(losses, ratios, 2.0, threshold=1e-9)
    assert never.stopping_time == -1
    np.testing.assert_allclose(never.pl_constant, 1e-6)
    at_once = almost_pl(losses, ratios, 2.0, threshold=3.0)
    assert at_once.stopping_time == at_once.bound == 0


def test_rejects_bad_arguments():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        stochastic_rate(1.0, 1.0, 1.0, num_examples=1, batch_size=0)
    with pytest.raises(ValueError, match="must have one length, not 0, got 2 and 1"):
        almost_pl(np.ones(2), np.ones(1), 1.0, threshold=1.0)
