# SPDX-License-Identifier: Apache-2.0
"""Losses and closed-form gradients against autodiff, and the truth's promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune import matrix_sensing as ms

# Without optimisation the same float32 draws differ in the last bit between two programs.
pytestmark = pytest.mark.usefixtures("strict_dtypes", "optimised")
D, K, R, N = 5, 4, 2, 12


POPULATIONS = {"population": ms.GAUSSIAN, "quadratic population": ms.QUADRATIC}
MEASUREMENTS = {
    "gaussian": ms.gaussian,
    "streamed": lambda n, _, key: ms.streamed(n, block=4, key=key),
    "rank_one": ms.rank_one,
    "fourier": ms.fourier,
}


def problem_named(name, key):
    truth = ms.low_rank_truth(D, jnp.array([1.0, 0.5]), key=key)
    if name in POPULATIONS:
        return ms.Problem(truth, POPULATIONS[name])
    return ms.observe(truth, MEASUREMENTS[name](N, D, key=key), noise=0.3, key=key)


@pytest.mark.parametrize("name", [*MEASUREMENTS, *POPULATIONS])
def test_gradient_is_that_of_the_loss(key, name):
    problem = problem_named(name, key)
    factor = jax.random.normal(jax.random.key(1), (D, K))
    expected = jax.grad(lambda u: ms.loss(problem, u))(factor)
    chex.assert_trees_all_close(ms.gradient(problem, factor), expected, rtol=1e-10, atol=1e-12)


def test_truth_has_the_given_singular_values_and_zero_loss(key):
    truth = ms.low_rank_truth(D, jnp.array([2.0, 1.0]), key=key)
    np.testing.assert_allclose(np.linalg.svd(truth)[1], [2.0, 1.0])
    exact = ms.observe(truth, ms.gaussian(N, D, key=key), key=key)
    rotated = truth @ jnp.array([[0.6, -0.8], [0.8, 0.6]])
    for problem in (exact, ms.Problem(truth, ms.GAUSSIAN)):
        np.testing.assert_allclose(ms.loss(problem, rotated), 0, atol=1e-25)
    np.testing.assert_allclose(ms.squared_error(truth, jnp.zeros((D, K))), 17.0)


def test_noise_has_the_given_size(key):
    truth = ms.low_rank_truth(D, jnp.ones(R), key=key)
    problem = ms.observe(truth, ms.rank_one(20_000, D, key=key), noise=0.3, key=jax.random.key(9))
    np.testing.assert_allclose(jnp.sqrt(ms.loss(problem, truth)), 0.3, rtol=0.02)


@pytest.mark.parametrize(("d", "r"), [(4, 1), (5, 2), (3, 3)])
def test_degrees_of_freedom_is_the_rank_of_the_parametrisation(key, d, r):
    truth = ms.low_rank_truth(d, jnp.ones(r), key=key)
    jacobian = jax.jacobian(lambda u: (u @ u.T).ravel())(truth).reshape(d * d, d * r)
    assert np.linalg.matrix_rank(np.asarray(jacobian)) == ms.degrees_of_freedom(d, r)


@pytest.mark.parametrize("population", [ms.GAUSSIAN, ms.QUADRATIC])
def test_escape_gain_is_the_slowest_growth_near_zero(key, population):
    values = jnp.array([1.5, 0.7])
    problem = ms.Problem(ms.low_rank_truth(D, values, key=key), population)
    hessian = jax.jacfwd(lambda u: ms.gradient(problem, u[:, None])[:, 0])(jnp.zeros(D))
    directions = problem.truth / values[None]
    rates = -jnp.diag(directions.T @ hessian @ directions)
    np.testing.assert_allclose(ms.escape_gain(values, population), jnp.min(rates) / 4)


def test_rejects_more_singular_values_than_rows(key):
    with pytest.raises(ValueError, match=r"r must lie in \[1, d = 3\], got 4"):
        ms.low_rank_truth(3, jnp.ones(4), key=key)
