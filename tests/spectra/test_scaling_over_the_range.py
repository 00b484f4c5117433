# SPDX-License-Identifier: Apache-2.0
"""What is found of 2^k A is 2^k times what is found of A, bit for bit, over the whole range."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra import extreme_eigenpairs, ritz_ends, spectral_measure, trace
from plprune.spectra.lanczos import tridiagonal
from tests import problems

SIZE = 20
SPECTRA = {
    "definite": np.geomspace(1e-4, 1, SIZE),
    "indefinite": np.linspace(-1, 0.7, SIZE),
    "clustered": np.repeat([-1.0, 0.5, 0.5 + 1e-7, 1.0], SIZE // 4),
    "isolated": np.append(np.geomspace(1e-6, 1e-5, SIZE - 1), 1.0),
    "zeros": np.repeat([0.0, 1.0], [SIZE - 3, 3]),
}
POWERS = {jnp.float32: np.arange(-81, 118, 9), jnp.float64: np.arange(-913, 1000, 83)}
FACTORS = {  # Number of powers of the scale in each field that is not invariant.
    "ritz_ends": {"values": 1, "residuals": 1, "margins": 1},
    "spectral_measure": {"nodes": 1},
    "trace": {"value": 1, "standard_error": 1},
    "tridiagonal": {"small": 1},
}


def matrices(dtype):
    keys = jax.random.split(jax.random.key(1), len(SPECTRA))
    found = [problems.symmetric(k, v, dtype) for k, v in zip(keys, SPECTRA.values(), strict=True)]
    # One direction that the start sees little of, and nothing else in its rows.
    diagonal = jnp.diag(jnp.asarray(SPECTRA["isolated"], dtype))
    return jnp.stack([*found, diagonal])


def operators(product, like, key):
    ends = ritz_ends(product, like, key=key, which="both", max_steps=12)._asdict()
    measure = spectral_measure(product, like, key=key, num_probes=2, num_steps=5)._asdict()
    mean = trace(product, like, key=key, num_probes=3)._asdict()
    small = tridiagonal(product, like, key=key, num_steps=6)
    return {
        "ritz_ends": ends,
        "spectral_measure": measure,
        "trace": mean,
        "tridiagonal": {"small": small},
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_products(dtype, key):
    scales = np.ldexp(1.0, POWERS[dtype])

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    @partial(jax.vmap, in_axes=(0, None))
    def solve(matrix, scale):
        return operators(lambda v: (scale * matrix) @ v, jnp.zeros(SIZE, dtype), key)

    found = jax.tree.map(np.asarray, solve(matrices(dtype), jnp.asarray(scales, dtype)))
    home = int(np.flatnonzero(scales == 1)[0])
    for name, fields in found.items():
        for field, values in fields.items():
            power = FACTORS[name].get(field, 0)
            expected = values[home] * (scales**power).reshape(-1, *[1] * (values.ndim - 1))
            if power:  # Residuals and margins far below the values may underflow by themselves.
                tiny = np.finfo(dtype).tiny
                expected = np.where(np.abs(expected) < tiny, 0, expected).astype(dtype)
            np.testing.assert_array_equal(values, expected, f"{name} {field}")
    ends = found["ritz_ends"]["values"][home]
    np.testing.assert_allclose(ends[:, 1], [1, 0.7, 1, 1, 1, 1], rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dense_ends(dtype):
    """Certificates too: squares of residuals underflow at scales of 1e-16 already."""
    n = 80
    spectra = [np.geomspace(1e-3, 1, n), np.repeat([0.0, 1.0], [10, n - 10]), np.linspace(1, 2, n)]
    keys = jax.random.split(jax.random.key(2), len(spectra))
    base = jnp.stack([problems.symmetric(k, v, dtype) for k, v in zip(keys, spectra, strict=True)])
    limit = 60 if dtype == jnp.float32 else 900
    scales = np.ldexp(1.0, [0, -limit, 2 * limit // 3, limit])

    @jax.jit
    def solve(scale):
        options = {"method": "cholesky"}
        return jax.lax.map(lambda a: extreme_eigenpairs(a, **options), scale * base)

    for scale in scales:
        found = solve(jnp.asarray(scale, dtype))._asdict()
        if scale == 1:
            home = found
        for name, value in found.items():
            power = 0 if name.endswith(("vectors", "vector")) else 1
            np.testing.assert_array_equal(value, home[name] * scale**power, f"{name} {scale}")
    truth = np.linalg.eigvalsh(np.asarray(base, np.float64))
    assert (home["lower"] <= truth[:, 0]).all()
    assert (home["upper"] >= truth[:, -1]).all()


def test_what_underflow_took_is_no_number(key):
    """Products with 1e-39 are zero on some devices, with 1e-35 they have lost digits inside."""
    like = jnp.zeros(6, jnp.float32)

    @jax.jit
    @jax.vmap
    def both(scale):
        measure = spectral_measure(lambda v: scale * v, like, key=key, num_probes=2, num_steps=2)
        return measure.nodes, trace(lambda v: scale * v, like, key=key, num_probes=2).value

    nodes, means = both(jnp.array([1e-35, 1e-32], jnp.float32))
    assert np.isnan(nodes).all()
    assert np.isnan(means).all()
    kept = jnp.array([0, 1e-30, 1e30], jnp.float32)
    nodes, means = both(kept)
    np.testing.assert_allclose(nodes[:, 0, 0], kept, rtol=1e-6)
    np.testing.assert_allclose(means, 6 * kept, rtol=1e-6)


def test_iterations_end_at_once_without_numbers(key):
    def matvec(v):
        return jnp.float32(1e38) * v * jnp.float32(1e38)

    ends = ritz_ends(matvec, jnp.zeros(40, jnp.float32), key=key)
    assert ends.num_products <= 4
    assert not ends.converged
    assert not np.isfinite(ends.values).any()


def test_half_precision_and_integers(key):
    matrix = jnp.diag(jnp.arange(1, 7))
    for dtype in (jnp.bfloat16, jnp.float16, jnp.int32, jnp.int8):
        pairs = extreme_eigenpairs(matrix.astype(dtype))
        np.testing.assert_allclose([pairs.smallest[0], pairs.largest], [1, 6], rtol=1e-5)
        assert pairs.smallest.dtype == jnp.float32
    half = matrix.astype(jnp.bfloat16)
    ends = ritz_ends(lambda v: half @ v, half[0], key=key)
    np.testing.assert_allclose(ends.values, [1, 6], rtol=2e-2)
    with pytest.raises(ValueError, match="matrix must hold real numbers, got complex128"):
        extreme_eigenpairs(matrix.astype(complex))
    with pytest.raises(ValueError, match="at least one row"):
        extreme_eigenpairs(jnp.zeros((0, 0)))
