# SPDX-License-Identifier: Apache-2.0
"""A certificate must hold for the lowest pairs and must not for any others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra.certificates import is_lowest
from plprune.spectra.davidson import Block, gap_bounds, value_errors
from tests import problems

N = 40
check = jax.jit(is_lowest, static_argnums=1)


def block_of(matrix, columns, noise=0.0):
    """Ritz pairs of some exact eigenvectors, slightly turned."""
    vectors = np.linalg.eigh(matrix)[1][:, columns]
    other = np.random.default_rng(0).normal(size=vectors.shape)
    basis = np.linalg.qr(vectors + noise * other)[0]
    values, rotation = np.linalg.eigh(basis.T @ matrix @ basis)
    basis = basis @ rotation
    residuals = matrix @ basis - basis * values
    return Block(*map(jnp.asarray, (values, basis, residuals)), jnp.ones((), bool))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "spectrum",
    [
        pytest.param(np.linspace(0.1, 1, N), id="float32-can-tell"),
        pytest.param(np.r_[1e-6 * np.arange(1, N), 1], id="needs-float64"),
    ],
)
def test_only_the_lowest_pairs_are_certified(key, sign, spectrum):
    matrix = problems.symmetric(key, sign * spectrum)
    certified = partial(check, sign * matrix, sign, high=jnp.array(1.0))
    lowest = np.arange(4)
    assert certified(block_of(matrix, lowest, 1e-7))
    assert not certified(block_of(matrix, lowest + 1, 1e-7))
    unknown = block_of(matrix, lowest)._replace(values=jnp.full(4, jnp.nan))
    assert not certified(unknown)


@pytest.mark.parametrize("noise", [1e-3, 1e-5])
def test_errors_hold_and_shrink_quadratically(key, noise):
    matrix = np.asarray(problems.symmetric(key, np.linspace(0.1, 1, N)))
    block = block_of(matrix, np.arange(4), noise)
    truth = np.linalg.eigvalsh(matrix)
    errors = value_errors(block, 2)
    assert (truth[:2] >= block.values[:2] - errors - 1e-15).all()
    assert errors[0] <= 1e5 * noise**2 + 1e-14
    bounds, half_gaps = gap_bounds(block)
    squares = np.cumsum(np.linalg.norm(block.residuals, axis=0) ** 2)[:-1]
    np.testing.assert_allclose(bounds, np.where(half_gaps > 0, squares / half_gaps, np.inf))


def test_without_a_gap_the_residual_is_the_bound():
    equal = Block(jnp.ones(3), jnp.eye(5, 3), 1e-3 * jnp.eye(5, 3, -2), jnp.ones((), bool))
    assert np.isinf(gap_bounds(equal)[0]).all()
    np.testing.assert_allclose(value_errors(equal, 1), 1e-3)
