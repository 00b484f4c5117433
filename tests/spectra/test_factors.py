"""Factors of shifted matrices: what they certify and what they solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra.factors import cholesky_solver, is_definite, shifted_cholesky
from tests import problems


@pytest.mark.parametrize("size", [7, 257, 512])
def test_solves_with_whole_and_broken_blocks(key, size):
    matrix = problems.symmetric(key, np.linspace(1, 4, size))
    right = jax.random.normal(key, (size, 3))
    solve = jax.jit(lambda f, x: cholesky_solver(f)(x))
    solved = solve(jnp.linalg.cholesky(matrix), right)
    np.testing.assert_allclose(matrix @ solved, right, atol=1e-12)


def test_definite_exactly_above_the_lowest_eigenvalue(key):
    matrix = problems.symmetric(key, np.linspace(-2, 4, 20))
    assert is_definite(matrix, jnp.array(2.0 + 1e-9))
    assert not is_definite(matrix, jnp.array(2.0 - 1e-9))
    assert not is_definite(-matrix, jnp.array(4.0 - 1e-9))
    assert not is_definite(matrix, jnp.array(jnp.nan))


def test_shifts_grow_until_rounding_is_covered(key):
    spectrum = np.concatenate([[-1e-14], np.zeros(5), np.ones(10)])
    matrix = problems.symmetric(key, spectrum)
    factor = shifted_cholesky(matrix, jnp.array(1.0))
    assert np.abs(factor @ factor.T - matrix).max() <= 1e-13
    assert not jnp.isfinite(shifted_cholesky(-jnp.eye(4), jnp.array(1.0))[-1, -1])
