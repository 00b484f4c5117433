# SPDX-License-Identifier: Apache-2.0
"""Both ends of dense matrices with prescribed spectra, and the promises of their bounds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.spectra import extreme_eigenpairs, extreme_eigenvalues, smallest_mean
from tests import problems

N = 72
SPECTRA = {
    "spread": np.geomspace(1e-3, 1, N),
    "clustered": np.repeat([1.0, 1.0 + 1e-9, 7.0], N // 3),
    "rank-deficient": np.repeat([0.0, 3.0], [10, N - 10]),
    "scaled-identity": np.full(N, 2.0),
    "ill-conditioned": np.geomspace(1e-12, 1, N),
    "zero": np.zeros(N),
}


@partial(jax.jit, static_argnames=("num_smallest", "method"))
def solve(matrix, num_smallest=1, method="cholesky"):
    return extreme_eigenpairs(matrix, num_smallest=num_smallest, method=method)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("method", ["cholesky", "eigh"])
@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_lie_within_their_bounds(key, name, method, dtype):
    spectrum = SPECTRA[name]
    matrix = problems.symmetric(key, spectrum, dtype)
    pairs = solve(matrix, method=method)
    # Entries rounded to the dtype move every eigenvalue by as much as the slack allows.
    truth = np.linalg.eigvalsh(np.asarray(matrix, np.float64))
    assert pairs.lower <= truth[0] <= pairs.smallest[0] + pairs.slack
    assert pairs.largest - pairs.slack <= truth[-1] <= pairs.upper
    resolution = 1e-5 * truth[0] + 20 * pairs.slack
    assert pairs.smallest[0] - pairs.lower <= resolution
    assert pairs.upper - pairs.largest <= 1e-4 * truth[-1] + 5 * pairs.slack
    assert pairs.smallest.dtype == pairs.lower.dtype == dtype


@pytest.mark.parametrize("method", ["cholesky", "eigh"])
@pytest.mark.parametrize("name", ["spread", "clustered", "ill-conditioned"])
def test_several_smallest(key, name, method):
    matrix = problems.symmetric(key, SPECTRA[name])
    pairs = solve(matrix, num_smallest=6, method=method)
    np.testing.assert_allclose(pairs.smallest, SPECTRA[name][:6], rtol=1e-6, atol=2e-14)
    vectors = np.asarray(pairs.smallest_vectors)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-12)
    residuals = np.linalg.norm(matrix @ vectors - vectors * np.asarray(pairs.smallest), axis=0)
    np.testing.assert_allclose(pairs.smallest_residuals, residuals, atol=1e-14)


def test_laplacian_has_its_textbook_ends():
    n = 648  # Above the size at which "auto" turns to Cholesky.
    laplacian = 2 * jnp.eye(n) - jnp.eye(n, k=1) - jnp.eye(n, k=-1)
    pairs = solve(laplacian, method="auto")
    angle = np.pi / (n + 1)
    np.testing.assert_allclose(pairs.smallest[0], 2 - 2 * np.cos(angle), rtol=1e-8)
    # The upper end is crowded, so Lanczos stops short of it and says by how much.
    assert pairs.largest <= 2 + 2 * np.cos(angle) <= pairs.upper < 4.1


@given(
    exponent=st.floats(0, 12),
    repeats=st.integers(1, 8),
    rank=st.integers(1, N),
    scale=st.floats(-6, 6),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_bounds_hold_for_any_spectrum(exponent, repeats, rank, scale, seed):
    values = np.repeat(np.geomspace(10.0**-exponent, 1, -(-N // repeats)), repeats)[:N]
    values[: N - rank] = 0
    matrix = problems.symmetric(jax.random.key(seed), values * 10**scale)
    pairs = solve(matrix, num_smallest=2)
    truth = np.linalg.eigvalsh(np.asarray(matrix))
    assert pairs.lower <= truth[0] <= pairs.smallest[0] + pairs.slack
    assert pairs.largest - pairs.slack <= truth[-1] <= pairs.upper
    assert np.abs(truth - float(pairs.smallest[1])).min() <= (
        pairs.smallest_residuals[1] + pairs.slack
    )


def kernel_like(key, dtype):
    """A spectrum like that of a wide network's kernel: a crowded low end, a thin high one."""
    values = np.concatenate([np.linspace(1, 60, 500), np.geomspace(60, 2e4, 100)])
    return problems.symmetric(key, values, dtype), values


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_krylov_spaces_know_a_kernel_s_ends_to_a_hundredth(key, dtype):
    matrix, values = kernel_like(key, dtype)
    pairs = solve(matrix, num_smallest=5, method="krylov")
    low, vectors = np.asarray(pairs.smallest), np.asarray(pairs.smallest_vectors, np.float64)
    np.testing.assert_allclose(low.mean(), values[:5].mean(), rtol=1e-2)
    np.testing.assert_allclose(pairs.largest, values[-1], rtol=1e-3)
    wide = np.asarray(matrix, np.float64)
    np.testing.assert_allclose(np.diag(vectors.T @ wide @ vectors), low, rtol=1e-3)
    residuals = np.linalg.norm(wide @ vectors - vectors * low, axis=0)
    rounding = jnp.finfo(dtype).eps * values[-1]
    np.testing.assert_allclose(pairs.smallest_residuals, residuals, rtol=0.1, atol=rounding)
    assert np.max(residuals) > 1.5 * rounding
    top = np.asarray(pairs.largest_vector, np.float64)
    np.testing.assert_allclose(top @ wide @ top, pairs.largest, rtol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-5)
    assert pairs.lower == -np.inf
    assert pairs.upper == np.inf


def test_krylov_is_exact_where_the_matrix_is_small(key):
    matrix = problems.symmetric(key, SPECTRA["spread"])
    pairs, exact = (solve(matrix, num_smallest=3, method=m) for m in ("krylov", "eigh"))
    np.testing.assert_array_equal(pairs.smallest, exact.smallest)
    assert np.isfinite(pairs.upper)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_krylov_survives_a_kernel_without_full_rank(key, dtype):
    _, values = kernel_like(key, dtype)
    values = np.where(np.arange(len(values)) < 50, 0, values)
    pairs = solve(problems.symmetric(key, values, dtype), num_smallest=5, method="krylov")
    assert np.all(np.abs(pairs.smallest) <= pairs.slack)
    np.testing.assert_allclose(pairs.largest, values[-1], rtol=1e-3)


@pytest.mark.parametrize("name", ["zero", "identity", "rank-one"])
def test_krylov_spaces_may_be_exhausted(name):
    n = 600
    matrix = {"zero": jnp.zeros, "identity": lambda s: jnp.eye(*s), "rank-one": jnp.ones}[name]
    ends = {"zero": (0, 0), "identity": (1, 1), "rank-one": (0, n)}[name]
    pairs = solve(matrix((n, n)).astype(jnp.float32), num_smallest=5, method="krylov")
    vectors = np.asarray(pairs.smallest_vectors)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(pairs.largest, ends[1], rtol=1e-5)
    np.testing.assert_allclose(pairs.smallest, ends[0], rtol=1e-4, atol=float(pairs.slack))


def test_derivative_of_ritz_values_follows_their_vectors(key):
    """Against the change of all eigenvalues in float64, where the mean of the lowest is smooth."""
    matrix, _ = kernel_like(key, jnp.float64)
    change = problems.symmetric(jax.random.fold_in(key, 1), np.linspace(0.0, 1.0, len(matrix)))

    def ratio(t):
        low, high = extreme_eigenvalues(matrix + t * change, 5, "krylov")
        return jnp.log(high) - jnp.log(jnp.mean(low))

    def exact(t):
        values = np.linalg.eigvalsh(np.asarray(matrix + t * change))
        return np.log(values[-1]) - np.log(values[:5].mean())

    slope = jax.grad(ratio)(0.0)
    pairs = solve(matrix, num_smallest=5, method="krylov")  # To the last digits it is theirs.
    moved = [
        np.diag(v.T @ change @ v) for v in (pairs.largest_vector[:, None], pairs.smallest_vectors)
    ]
    own = moved[0][0] / pairs.largest - moved[1].mean() / pairs.smallest.mean()
    np.testing.assert_allclose(slope, own, rtol=1e-9)
    low, high = extreme_eigenvalues(matrix, 5, "krylov")
    np.testing.assert_allclose([*low, high], [*pairs.smallest, pairs.largest], rtol=1e-12)
    np.testing.assert_allclose(slope, (exact(1e-4) - exact(-1e-4)) / 2e-4, rtol=2e-2)


def test_vmap_matches_loop(key):
    matrices = jnp.stack([problems.symmetric(key, SPECTRA[k]) for k in ("spread", "clustered")])
    batched = jax.jit(jax.vmap(solve))(matrices)
    for i in range(2):
        single = solve(matrices[i])
        np.testing.assert_allclose(batched.smallest[i], single.smallest, rtol=1e-6)
        np.testing.assert_allclose(batched.upper[i], single.upper, rtol=1e-5)


def test_lowers_for_accelerators_at_full_precision():
    matrix = jax.ShapeDtypeStruct((N, N), jnp.float32)
    exported = jax.export.export(solve, platforms=["cuda", "tpu"])(matrix)
    assert exported.platforms == ("cuda", "tpu")
    text = str(jax.make_jaxpr(solve)(jnp.eye(N)))
    products = text.count("dot_general[")
    assert products > 4
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.parametrize(
    ("platform", "rows", "iterates"),
    [("cuda", 700, False), ("cuda", 4097, True), ("tpu", 700, True), ("cpu", 700, True)],
)
def test_the_device_of_the_program_decides_what_it_holds(platform, rows, iterates):
    """On CUDA an eigen-decomposition alone, up to some size; nowhere what another device takes."""
    matrix = jax.ShapeDtypeStruct((rows, rows), jnp.float32)
    automatic = partial(extreme_eigenpairs, method="auto")
    text = jax.export.export(jax.jit(automatic), platforms=[platform])(matrix).mlir_module()
    factorisation = {"cuda": "potrf", "tpu": "stablehlo.cholesky", "cpu": "potrf"}[platform]
    assert (factorisation in text) == iterates
    assert {"cuda": "cusolver_syevd", "tpu": "@Eigh", "cpu": "syevd_ffi"}[platform] in text


def test_not_a_number_is_not_certified():
    pairs = solve(jnp.full((N, N), jnp.nan))
    assert not np.isfinite(pairs.lower)


def test_derivative_is_that_of_a_simple_eigenvalue(key):
    start, change = (problems.symmetric(k, np.arange(1.0, 9.0)) for k in jax.random.split(key))
    (low, high), (low_dot, high_dot) = jax.jvp(
        lambda t: extreme_eigenvalues(start + t * change, 2), (0.0,), (1.0,)
    )
    np.testing.assert_allclose([*low, high], [1, 2, 8], rtol=1e-12)
    ends = [np.linalg.eigvalsh(start + t * change) for t in (1e-5, -1e-5)]
    numeric = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose([*low_dot, high_dot], numeric[[0, 1, -1]], rtol=1e-6)


def test_mean_over_a_cluster_is_smooth():
    """Where eigenvalues coincide only their mean has a derivative: a third of P's trace."""
    matrix = jnp.diag(jnp.array([1.0, 1.0, 1.0, 5.0]))
    gradient = jax.grad(lambda a: smallest_mean(a, 3))(matrix)
    np.testing.assert_allclose(gradient, np.diag([1, 1, 1, 0]) / 3, atol=1e-12)


def test_rejects_bad_arguments():
    with pytest.raises(ValueError, match=r"square, got shape \(2, 3\)"):
        extreme_eigenpairs(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\[1, 3\], got 4"):
        extreme_eigenpairs(jnp.eye(3), num_smallest=4)
    with pytest.raises(ValueError, match="method must be one of"):
        extreme_eigenpairs(jnp.eye(3), method="power")
