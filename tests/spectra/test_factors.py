# SPDX-License-Identifier: Apache-2.0
"""Factors of shifted matrices: what they certify and what they solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra.factors import (
    blocked_cholesky,
    cholesky_solver,
    has_factor,
    shifted_cholesky,
)
from tests import problems

ONE = jnp.array(1.0)


def lower(factor):
    """The blocks put together."""
    columns = []
    for left, square, below in zip(*factor, strict=True):
        above = jnp.zeros((left.shape[1], len(square)), square.dtype)
        columns.append(jnp.concatenate([above, jnp.tril(square), below]))
    return np.asarray(jnp.concatenate(columns, axis=1))


@pytest.mark.parametrize("size", [7, 300])
def test_factors_and_solves_by_blocks(key, size):
    matrix = problems.symmetric(key, np.linspace(1, 4, size))
    right, update = jax.random.normal(key, (2, size, 3))
    factor, solved = jax.jit(
        lambda a: (f := blocked_cholesky(a, 2 * ONE, ONE, update), cholesky_solver(f)(right))
    )(matrix)
    factored = 2 * matrix + np.eye(size) + update @ update.T
    np.testing.assert_allclose(lower(factor) @ lower(factor).T, factored, atol=1e-11)
    np.testing.assert_allclose(factored @ solved, right, atol=1e-11)


def test_only_the_upper_triangle_is_read(key):
    matrix = problems.symmetric(key, np.linspace(1, 4, 300))
    spoilt = jnp.where(jnp.tri(300, k=-257), jnp.nan, matrix)
    factor = jax.jit(lambda a: blocked_cholesky(a, ONE, 0 * ONE))
    factors = [lower(factor(a)) for a in (matrix, spoilt)]
    np.testing.assert_array_equal(*factors)


def test_definite_exactly_above_the_lowest_eigenvalue(key):
    matrix = problems.symmetric(key, np.linspace(-2, 4, 20))

    def is_definite(sign, shift):
        return has_factor(blocked_cholesky(matrix, sign * ONE, jnp.array(shift)))

    assert is_definite(1, 2.0 + 1e-9)
    assert not is_definite(1, 2.0 - 1e-9)
    assert is_definite(-1, 4.0 + 1e-9)
    assert not is_definite(-1, 4.0 - 1e-9)
    assert not is_definite(1, jnp.nan)


def test_shifts_grow_until_rounding_is_covered(key):
    spectrum = np.concatenate([[-1e-14], np.zeros(5), np.ones(10)])
    matrix = problems.symmetric(key, spectrum)
    factor = lower(shifted_cholesky(matrix, ONE, jnp.float64))
    assert np.abs(factor @ factor.T - matrix).max() <= 1e-13
    assert not has_factor(shifted_cholesky(-jnp.eye(4), ONE, jnp.float64))
