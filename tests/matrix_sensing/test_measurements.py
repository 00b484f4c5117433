# SPDX-License-Identifier: Apache-2.0
"""Every operator against its dense matrices, and the moments that its scaling promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune import matrix_sensing as ms

pytestmark = pytest.mark.usefixtures("strict_dtypes")
D, K, N = 6, 3, 10


def operators(key):
    return {
        "gaussian": ms.gaussian(N, D, key=key),
        "streamed": ms.streamed(N, block=5, key=key),
        "rank_one": ms.rank_one(N, D, key=key),
        "quadratic": ms.rank_one(N, D, key=key, quadratic=True),
        "fourier": ms.fourier(N, D, key=key),
    }


def dense(measurements, d):
    """A_i as a NumPy array [n, d, d], each in the most literal way."""
    if isinstance(measurements, ms.Gaussian):
        return np.asarray(measurements.matrices)
    if isinstance(measurements, ms.Streamed):
        keys = measurements.keys.ravel()
        return np.stack([jax.random.normal(k, (d, d), jnp.float32) for k in keys]).astype(float)
    if isinstance(measurements, ms.RankOne):
        return np.einsum("ni,nj->nij", measurements.left, measurements.right)
    # The orthonormal DCT-II: C[u, i] = c_u cos(pi (2 i + 1) u / (2 d)).
    u, i = np.meshgrid(np.arange(d), np.arange(d), indexing="ij")
    cosines = np.cos(np.pi * (2 * i + 1) * u / (2 * d)) * np.sqrt(2 / d)
    cosines[0] /= np.sqrt(2)
    rows, columns = np.unravel_index(np.asarray(measurements.places), (d, d))
    atoms = np.einsum("ni,nj->nij", cosines[rows], cosines[columns])
    return d * atoms * np.asarray(measurements.signs)


@pytest.mark.parametrize("kind", ["gaussian", "streamed", "rank_one", "quadratic", "fourier"])
def test_operator_equals_its_dense_matrices(key, kind):
    measurements = operators(key)[kind]
    factor = jax.random.normal(jax.random.key(1), (D, K))
    weights = jax.random.normal(jax.random.key(2), (N,))
    matrices = dense(measurements, D)
    expected = np.einsum("nij,ik,jk->n", matrices, factor, factor)
    np.testing.assert_allclose(jax.jit(lambda m, u: m.measure(u))(measurements, factor), expected)
    total = np.einsum("n,nij->ij", weights, matrices)
    pulled = jax.jit(lambda m, w, u: m.pull_back(w, u))(measurements, weights, factor)
    np.testing.assert_allclose(pulled, (total + total.T) / 2 @ factor, atol=1e-12)
    assert measurements.num_measurements == N


def test_streaming_draws_each_block_once_and_agrees_with_two_passes(key):
    measurements = ms.streamed(N, block=5, key=key)
    factor = jax.random.normal(jax.random.key(1), (D, K))
    labels = jnp.arange(float(N))
    residual, pulled = measurements.residual_and_pull_back(labels, factor)
    chex.assert_trees_all_close(residual, measurements.measure(factor) - labels, rtol=1e-12)
    chex.assert_trees_all_close(pulled, measurements.pull_back(residual, factor), rtol=1e-12)


def test_streaming_needs_memory_of_one_block_only(key):
    d, n, block = 40, 2000, 20
    measurements = ms.streamed(n, block=block, key=key)
    compiled = jax.jit(lambda m, y, u: m.residual_and_pull_back(y, u)).lower(
        measurements, jnp.zeros(n), jnp.zeros((d, 2))
    )
    used = compiled.compile().memory_analysis().temp_size_in_bytes
    assert used < 8 * (block * d * d * 8 + n * 8 + 10 * d * d * 8)  # All of them: 25.6 MB.


@pytest.mark.parametrize("kind", ["gaussian", "rank_one", "fourier"])
def test_mean_square_reads_the_frobenius_norm(kind):
    d, n = 20, 400 if kind == "fourier" else 20_000
    measurements = getattr(ms, kind)(n, d, key=jax.random.key(3))
    factor = jax.random.normal(jax.random.key(1), (d, 2))
    mean = jnp.mean(jnp.square(measurements.measure(factor)))
    exact = jnp.sum(jnp.square(factor @ factor.T))
    # All d^2 entries of an orthogonal transform give the norm exactly.
    np.testing.assert_allclose(mean / exact, 1, rtol=1e-10 if kind == "fourier" else 0.06)


def test_quadratic_network_is_the_measurement_x_x(key):
    measurements = ms.rank_one(N, D, key=key, quadratic=True)
    factor = jax.random.normal(jax.random.key(1), (D, K))
    outputs = [sum(float(u @ x) ** 2 for u in factor.T) for x in measurements.left]
    np.testing.assert_allclose(measurements.measure(factor), outputs)


def test_fourth_moment_identity_of_normal_inputs():
    # E <x x', D>^2 = 2 |D|_F^2 + (tr D)^2, exactly: Gauss-Hermite quadrature of degree 4.
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    gap = np.array([[1.0, -2.0, 0.5], [-2.0, 0.3, 1.5], [0.5, 1.5, -4.0]])
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    mass = np.einsum("i,j,k->ijk", weights, weights, weights).ravel()
    forms = np.einsum("ni,ij,nj->n", grid, gap, grid)
    expected = 2 * np.sum(gap**2) + np.trace(gap) ** 2
    np.testing.assert_allclose(mass @ forms**2, expected, rtol=1e-12)
    # `loss` of the quadratic population is that expression.
    factor, truth = np.linalg.qr(gap)[0], np.array([[1.0], [2.0], [0.0]])
    gap = factor @ factor.T - truth @ truth.T
    problem = ms.Problem(jnp.asarray(truth), ms.QUADRATIC)
    value = ms.loss(problem, jnp.asarray(factor))
    np.testing.assert_allclose(value, 2 * np.sum(gap**2) + np.trace(gap) ** 2)


def test_rejects_bad_sizes(key):
    with pytest.raises(ValueError, match="block must divide n = 10, got 3"):
        ms.streamed(10, block=3, key=key)
    with pytest.raises(ValueError, match=r"n must be at most d\^2 = 36, got 37"):
        ms.fourier(37, 6, key=key)
