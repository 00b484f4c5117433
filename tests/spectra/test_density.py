# SPDX-License-Identifier: Apache-2.0
"""Traces and densities from random probes against closed-form spectra."""

import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra import density, spectral_measure, trace
from tests import problems

pytestmark = pytest.mark.usefixtures("strict_dtypes")
N = 24


def test_trace_of_a_diagonal_is_exact_and_otherwise_within_its_error(key):
    like = jnp.zeros(N)
    exact = trace(lambda v: jnp.arange(1.0, N + 1) * v, like, key=key, num_probes=4)
    np.testing.assert_allclose(exact.value, N * (N + 1) / 2)
    np.testing.assert_allclose(exact.standard_error, 0, atol=1e-10)
    matrix = problems.symmetric(key, np.linspace(0, 1, N))
    rough = trace(lambda v: matrix @ v, like, key=key, num_probes=400)
    assert abs(rough.value - N / 2) < 4 * rough.standard_error
    off = np.asarray(matrix) - np.diag(np.diag(matrix))
    np.testing.assert_allclose(rough.standard_error, np.sqrt(2 * (off**2).sum() / 400), rtol=0.2)


def test_measure_has_the_spectrum_s_moments(key):
    spectrum = np.repeat([0.0, 1.0, 4.0], N // 3)  # Closes after three steps.
    matrix = problems.symmetric(key, spectrum)
    measure = spectral_measure(
        lambda v: matrix @ v, jnp.zeros(N), key=key, num_probes=200, num_steps=6
    )
    assert bool(jnp.all(jnp.isfinite(measure.nodes)))
    np.testing.assert_allclose(measure.weights.sum(1), 1, rtol=1e-10)
    for power in (1, 2):
        moments = (measure.weights * measure.nodes**power).sum(1)
        error = moments.std() / np.sqrt(200)
        assert abs(moments.mean() - np.mean(spectrum**power)) < 4 * error


def test_density_of_three_atoms_integrates_to_one(key):
    matrix = problems.symmetric(key, np.repeat([0.0, 1.0, 4.0], N // 3))
    measure = spectral_measure(
        lambda v: matrix @ v, jnp.zeros(N), key=key, num_probes=200, num_steps=4
    )
    grid = jnp.linspace(-1.0, 5.0, 601)
    smooth = density(measure, grid, 0.1)
    np.testing.assert_allclose(jnp.sum(smooth.value) * 0.01, 1, rtol=1e-6)
    peak = smooth.value[jnp.array([100, 200, 500])]
    expected = 1 / (3 * 0.1 * np.sqrt(2 * np.pi))
    assert (jnp.abs(peak - expected) < 4 * smooth.standard_error[jnp.array([100, 200, 500])]).all()


def test_rejects_bad_arguments(key):
    like = jnp.zeros(3)
    with pytest.raises(ValueError, match="num_probes must be at least 2, got 1"):
        trace(lambda v: v, like, key=key, num_probes=1)
    with pytest.raises(ValueError, match=r"\[1, 3\], got 4"):
        spectral_measure(lambda v: v, like, key=key, num_probes=2, num_steps=4)
