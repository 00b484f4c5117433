# SPDX-License-Identifier: Apache-2.0
"""What descent promises: r columns with the regulariser, many without, linear fine-tuning."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune import matrix_sensing as ms

D, R, BETA, STRENGTH = 20, 2, 1e-3, 0.02


@functools.partial(jax.jit, static_argnames=("num_steps", "form"))
def run(problem, start, strength, num_steps=3000, form="rational", tol=1e-7):
    return ms.descend(
        problem, start, step_size=0.1, num_steps=num_steps, strength=strength, beta=BETA,
        form=form, tol=tol,
    )  # fmt: skip


@pytest.fixture
def truth(key):
    return ms.low_rank_truth(D, jnp.ones(R), key=key)


@pytest.fixture
def start():
    return ms.small_start(D, D, scale=1e-3, key=jax.random.key(1), dtype=jnp.float64)


@pytest.mark.parametrize("form", ["rational", "convex"])
def test_exactly_r_columns_stay_with_the_predicted_norm_and_bias(truth, start, form):
    end = run(ms.Problem(truth, ms.GAUSSIAN), start, STRENGTH, form=form)
    norms = ms.column_norms(end.factor)
    kept = ms.prune(end.factor, ms.threshold(BETA))
    assert kept.shape == (D, R)
    assert end.gradient_norm <= 1e-7
    assert jnp.sort(norms)[-R - 1] < 1e-6
    predicted = ms.stationary_norm(jnp.ones(R), STRENGTH)
    np.testing.assert_allclose(ms.column_norms(kept), predicted, rtol=STRENGTH**2)
    error = jnp.sqrt(ms.squared_error(truth, kept))
    np.testing.assert_allclose(error, ms.stationary_bias(jnp.ones(R), STRENGTH), rtol=STRENGTH)
    tuned = run(ms.Problem(truth, ms.GAUSSIAN), kept, 0.0)
    assert ms.squared_error(truth, tuned.factor) < 1e-10


def test_without_the_regulariser_greedy_pruning_destroys_the_fit(truth, start):
    end = run(ms.Problem(truth, ms.GAUSSIAN), start, 0.0, tol=1e-4)
    norms = ms.column_norms(end.factor)
    assert ms.squared_error(truth, end.factor) < 1e-4
    assert ms.share_above(norms, 0.5) > 2 * R / D
    assert ms.squared_error(truth, ms.keep_largest(end.factor, R)) > 0.5


def test_beyond_the_escape_bound_every_column_collapses(truth, start):
    bound = ms.escape_bound(1.0, beta=BETA)
    problem = ms.Problem(truth, ms.GAUSSIAN)
    for share, columns in [(1.05, 0), (0.9, R)]:
        end = run(problem, start, share * bound)
        assert ms.prune(end.factor, ms.threshold(BETA)).shape[1] == columns


def test_small_start_has_columns_of_the_given_norm(key):
    norms = ms.column_norms(ms.small_start(1000, 3, scale=0.1, key=key))
    np.testing.assert_allclose(norms, 0.1, rtol=0.1)


def test_descend_stops_at_tol_or_at_the_cap_and_keeps_its_dtype(truth, start):
    problem = ms.Problem(truth, ms.GAUSSIAN)
    at_rest = run(problem, truth, 0.0)
    chex.assert_trees_all_equal((at_rest.steps, at_rest.factor), (0, truth))
    capped = ms.descend(problem, start.astype(jnp.float32), step_size=0.1, num_steps=2)
    assert (int(capped.steps), capped.factor.dtype) == (2, jnp.float32)
    expected = start
    for _ in range(2):
        expected = expected - 0.1 * ms.gradient(problem, expected)
    np.testing.assert_allclose(capped.factor, expected, rtol=1e-5)


def test_vmap_over_strengths_matches_a_loop(truth, start):
    problem = ms.Problem(truth, ms.GAUSSIAN)
    strengths = jnp.array([0.0, 0.02])
    batched = jax.vmap(lambda s: run(problem, start, s, num_steps=40).factor)(strengths)
    looped = jnp.stack([run(problem, start, s, num_steps=40).factor for s in strengths])
    chex.assert_trees_all_close(batched, looped, rtol=1e-9, atol=1e-12)


def test_curvatures_of_the_population_are_the_closed_form(key):
    sigma = np.array([1.0, 0.5, 0.8])
    d, r = 6, 3
    truth = ms.low_rank_truth(d, jnp.asarray(sigma), key=key)
    pairs = [4 * (sigma[i] ** 2 + sigma[j] ** 2) for i in range(r) for j in range(i, r)]
    outside = [4 * s**2 for s in sigma for _ in range(d - r)]
    found = ms.curvatures(ms.Problem(truth, ms.GAUSSIAN), truth)
    np.testing.assert_allclose(found, sorted(pairs + outside), rtol=1e-9)


def test_fine_tuning_converges_linearly_at_the_predicted_rate(truth):
    measurements = ms.gaussian(600, D, key=jax.random.key(2))
    problem = ms.observe(truth, measurements, noise=0.1, key=jax.random.key(3))
    start = truth + 0.05 * jax.random.normal(jax.random.key(4), truth.shape)
    distances = jax.jit(lambda p, u: ms.distances_to_limit(p, u, step_size=0.05, num_steps=150))(
        problem, start
    )
    np.testing.assert_allclose(distances[0], 0.05**2 * truth.size, rtol=0.5)
    fit = ms.fit_linear_convergence(distances, floor=1e-26)
    assert (fit.r2 > 0.99) & (fit.decades > 6)
    limit = run(problem, start, 0.0, tol=1e-12).factor
    predicted = ms.predicted_slope(ms.curvatures(problem, limit), 0.05)
    np.testing.assert_allclose(fit.slope, predicted, rtol=0.15)


def test_linear_fit_is_exact_on_a_geometric_sequence_and_ignores_the_floor():
    steps = jnp.arange(100.0)
    fit = ms.fit_linear_convergence(jnp.maximum(0.5**steps, 1e-20), floor=1e-19)
    np.testing.assert_allclose(fit.slope, np.log(0.5), rtol=1e-12)
    np.testing.assert_allclose(fit.r2, 1, rtol=1e-12)
    assert 18 < fit.decades <= 19


@pytest.mark.parametrize("distances", [[0.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0], [1.0]])
def test_too_few_distances_fit_nothing(distances):
    fit = ms.fit_linear_convergence(jnp.array(distances), floor=1e-20)
    chex.assert_trees_all_equal(fit, ms.LinearFit(*jnp.zeros(3)))
