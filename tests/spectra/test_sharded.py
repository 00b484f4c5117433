# SPDX-License-Identifier: Apache-2.0
"""Factors that share their matrix's memory; several devices are tested with the constants."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra.rows import Rows
from plprune.spectra.sharded import (
    Layout,
    SplitMatrix,
    block_height,
    cholesky,
    multiply,
    sharded_extreme_eigenpairs,
    solve,
)
from tests import problems

N = 72
ONE = Rows((), 1)
LAYOUT = Layout(ONE, N, 6)


@pytest.fixture
def matrix(key):
    return problems.symmetric(key, np.geomspace(1e-2, 1, N))


@jax.jit
def factored(matrix, vectors):
    """Products before and after factors, a solution, and which shifts have a factor."""
    split, one = SplitMatrix(matrix, jnp.diagonal(matrix)), jnp.ones(())
    update = vectors[:, :1]
    before = multiply(split, LAYOUT, 2 * one, vectors)
    split, is_definite = cholesky(split, LAYOUT, one, 0.1 * one, update)
    solved = solve(split, LAYOUT, vectors)
    split, was_found = cholesky(split, LAYOUT, one, -0.011 * one, jnp.zeros((N, 1)))
    again, is_again = cholesky(split, LAYOUT, one, -0.009 * one, jnp.zeros((N, 1)))
    return before, solved, multiply(again, LAYOUT, 2 * one, vectors), (
        is_definite, ~was_found, is_again,
    )  # fmt: skip


def test_matrix_and_factor_share_one_memory(key, matrix):
    vectors = jax.random.normal(key, (N, 3))
    before, solved, after, found = factored(matrix, vectors)
    np.testing.assert_allclose(before, 2 * matrix @ vectors, atol=1e-12)
    np.testing.assert_array_equal(after, before)
    shifted = matrix + 0.1 * np.eye(N) + vectors[:, :1] @ vectors[:, :1].T
    np.testing.assert_allclose(solved, np.linalg.solve(shifted, vectors), rtol=1e-9, atol=1e-12)
    assert all(found)


def test_ends_are_those_of_the_matrix_at_any_scale(matrix):
    values = np.linalg.eigvalsh(matrix)
    pairs = jax.jit(partial(sharded_extreme_eigenpairs, rows=ONE))(1e200 * matrix)
    np.testing.assert_allclose(pairs.smallest[0], 1e200 * values[0], rtol=1e-6)
    np.testing.assert_allclose(pairs.largest, 1e200 * values[-1], rtol=1e-6)
    assert 0 < pairs.lower <= 1e200 * values[0] + pairs.slack
    assert 1e200 * values[-1] - pairs.slack <= pairs.upper < 1.001e200


def test_blocks_divide_the_rows():
    assert block_height(5120) == 320
    assert block_height(1000) == 250
    assert block_height(6) == 6
    assert block_height(1009) == 1009  # A prime.


def test_rejects_what_a_search_space_does_not_fit():
    with pytest.raises(ValueError, match="at least 64 columns, got 8"):
        sharded_extreme_eigenpairs(jnp.eye(8), ONE)
