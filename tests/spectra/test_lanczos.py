# SPDX-License-Identifier: Apache-2.0
"""Lanczos against closed-form spectra."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra import ritz_ends
from tests import problems

pytestmark = pytest.mark.usefixtures("strict_dtypes")
N = 24


@partial(jax.jit, static_argnames=("max_steps", "which", "tol"))
def solve(matrix, key, max_steps=N, which="both", tol=1e-6):
    like = jnp.zeros(len(matrix), matrix.dtype)
    return ritz_ends(lambda v: matrix @ v, like, key=key, tol=tol, max_steps=max_steps, which=which)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "spectrum",
    [
        pytest.param(np.geomspace(1e-6, 1, N), id="ill-conditioned"),
        pytest.param(np.linspace(-2, -1, N), id="all-negative"),
        pytest.param(np.repeat([0.0, 3.0], [N - 4, 4]), id="rank-deficient"),
        pytest.param(np.full(N, 2.0), id="scaled-identity"),
        pytest.param(np.zeros(N), id="zero"),
        pytest.param(np.r_[np.linspace(-1, 1, N - 1), 40.0], id="outlier"),
    ],
)
def test_both_ends_within_residuals(key, spectrum, dtype):
    ends = solve(problems.symmetric(key, spectrum, dtype), key)
    slack = 100 * float(jnp.finfo(dtype).eps) * max(1e-3, np.abs(spectrum).max())
    assert ends.converged
    truth = np.array([spectrum.min(), spectrum.max()])
    assert (
        np.abs(np.asarray(ends.values, float) - truth) <= np.asarray(ends.residuals) + slack
    ).all()
    np.testing.assert_allclose(jnp.linalg.norm(ends.vectors, axis=1), 1, atol=1e-5)
    assert ends.values.dtype == ends.residuals.dtype == dtype


def test_stops_at_the_tolerance_and_at_the_wanted_end(key):
    matrix = problems.symmetric(key, np.r_[np.linspace(0, 1, N - 1), 40.0])
    loose = solve(matrix, key, which="highest", tol=1e-3)
    both = solve(matrix, key, which="both", tol=1e-9)
    assert loose.num_products < both.num_products <= N
    assert loose.residuals[1] <= 1e-3 * 40
    far = solve(-matrix, key, which="magnitude", tol=1e-3)
    assert far.num_products == loose.num_products
    np.testing.assert_allclose(far.values[0], -40, rtol=1e-6)


def test_unconverged_says_so(key):
    ends = solve(problems.symmetric(key, np.linspace(1, 2, N)), key, max_steps=3)
    assert not ends.converged
    assert ends.num_products == 3
    assert 1 <= ends.values[0] <= ends.values[1] <= 2


def test_vmap_matches_loop(key):
    keys = jax.random.split(key, 3)
    matrices = jnp.stack([problems.symmetric(k, np.linspace(-1, 1, N)) for k in keys])
    batched = jax.vmap(solve)(matrices, keys)
    for i in range(3):
        single = solve(matrices[i], keys[i])
        np.testing.assert_allclose(batched.values[i], single.values, rtol=1e-9)


def test_traces_once(key):
    counted = jax.jit(chex.assert_max_traces(n=1)(lambda m, k: solve.__wrapped__(m, k)))
    for scale in (1.0, 2.0):
        counted(scale * jnp.eye(N), key)


def test_rejects_bad_arguments(key):
    like = jnp.zeros(3)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        ritz_ends(lambda v: v, like, key=key, max_steps=0)
    with pytest.raises(ValueError, match="which must be one of"):
        ritz_ends(lambda v: v, like, key=key, which="middle")
    with pytest.raises(ValueError, match="at least one element"):
        ritz_ends(lambda v: v, jnp.zeros(0), key=key)
