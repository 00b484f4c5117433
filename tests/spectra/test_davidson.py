# SPDX-License-Identifier: Apache-2.0
"""Block Davidson: what it finds does not depend on the preconditioner, only how soon."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra.davidson import krylov_basis, lowest_block, space_size
from tests import problems

N = 80


@partial(jax.jit, static_argnames=("max_steps", "exact"))
def solve(matrix, start, max_steps=100, exact=True):
    inverse = jnp.linalg.inv(matrix)
    return lowest_block(
        lambda x: matrix @ x,
        (lambda r: inverse @ r) if exact else (lambda r: r),
        start,
        1,
        tol=1e-10,
        floor=jnp.zeros(()),
        max_steps=max_steps,
    )


@pytest.fixture
def start(key):
    return jax.random.normal(key, (N, space_size(1)[0]))


@pytest.mark.parametrize("exact", [True, False])
def test_finds_the_lowest_pair_across_restarts(key, start, exact):
    matrix = problems.symmetric(key, np.geomspace(1e-2, 1, N))
    block = solve(matrix, start, exact=exact)
    assert block.converged
    np.testing.assert_allclose(block.values[0], 1e-2, rtol=1e-9)
    residuals = matrix @ block.vectors - block.vectors * block.values[None]
    np.testing.assert_allclose(block.residuals, residuals, atol=1e-12)
    np.testing.assert_allclose(block.vectors.T @ block.vectors, np.eye(4), atol=1e-12)


def test_says_so_when_it_has_not_converged(key, start):
    matrix = problems.symmetric(key, np.linspace(1, 2, N))
    assert not solve(matrix, start, max_steps=2, exact=False).converged


def test_start_spans_the_powers_of_the_product(key, start):
    matrix = problems.symmetric(key, np.linspace(1, 2, N))
    basis = krylov_basis(lambda x: matrix @ x, start, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-12)
    powers = [matrix @ start, matrix @ matrix @ start, matrix @ matrix @ matrix @ start]
    assert basis.shape[1] == 3 * start.shape[1]
    for power in powers:
        np.testing.assert_allclose(basis @ (basis.T @ power), power, atol=1e-11)
