# SPDX-License-Identifier: Apache-2.0
"""Margins of Krylov spaces against their polynomials, and against spectra of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra import ritz_ends
from plprune.spectra.margins import PROBABILITY, outer_margins
from tests import problems

SIZE, STEPS = 24, 6


def margin_of(alpha, lengths, closed, count, size=SIZE):
    small = np.diag(alpha[:count]) + sum(
        np.diag(np.where(closed, 0, lengths)[: count - 1], k) for k in (1, -1)
    )
    ends = np.linalg.eigvalsh(small)[[0, -1]]
    arrays = map(jnp.asarray, (alpha, lengths, closed))
    return np.asarray(outer_margins(*arrays, jnp.int32(count), jnp.asarray(ends), size))


def test_is_where_the_polynomial_reaches_the_odds():
    """p_k(x) = prod(x - theta) / prod(b) has to reach 0.8 sqrt(n) / probability."""
    rng = np.random.default_rng(0)
    alpha, lengths = rng.normal(size=STEPS + 2), rng.uniform(0.5, 1, STEPS + 2)
    lengths[STEPS - 1] = 1e-4
    below, above = margin_of(alpha, lengths, np.zeros(STEPS + 2, bool), STEPS)
    off = lengths[: STEPS - 1]
    nodes = np.linalg.eigvalsh(np.diag(alpha[:STEPS]) + np.diag(off, 1) + np.diag(off, -1))
    needed = 0.8 * SIZE**0.5 / PROBABILITY

    def grown(x):
        return abs(np.prod((x - nodes) / lengths[:STEPS]))

    for end, margin, sign in ((nodes[0], below, -1), (nodes[-1], above, 1)):
        assert grown(end + sign * margin / 2) < needed <= grown(end + sign * margin) * (1 + 1e-9)


def test_starts_that_close_multiply_their_odds():
    """Two spaces that close at 1e-12 leave far less room than one."""
    alpha, closed = np.array([1.0, 2.0, 1.1, 1.9, 0, 0]), np.array([0, 1, 0, 1, 0, 0], bool)
    lengths = np.array([0.5, 1e-9, 0.5, 1e-9, 0, 0])
    one = margin_of(alpha, lengths, closed, 2)
    two = margin_of(alpha, lengths, closed, 4)
    assert (two < one / 10).all()
    assert (two >= 1e-8).all()  # What was neglected where they closed stays unknown.
    assert (margin_of(alpha, lengths, closed, 4, size=4) == 2e-9).all()  # Nothing is left to miss.


def test_one_product_says_nothing_and_nothing_has_no_margin():
    assert np.isinf(margin_of(np.ones(3), np.ones(3), np.zeros(3, bool), 1)).all()
    assert (margin_of(np.zeros(3), np.zeros(3), np.ones(3, bool), 2) == 0).all()


def spectrum(kind, rng):
    """Prescribed eigenvalues of condition 1 to 1e14."""
    low = 10.0 ** -rng.uniform(0, 14)
    spread = np.geomspace(low, 1, SIZE)
    width = 10.0 ** -rng.uniform(1, 14)
    return {
        "definite": spread,
        "indefinite": spread * rng.choice([-1, 1], SIZE),
        "crowded above": 1 - spread / 2,
        "clusters": np.repeat([1, 0.3, -0.2], SIZE // 3) * (1 + width * rng.uniform(-1, 1, SIZE)),
        "isolated": np.append(np.linspace(-0.5, 1, SIZE - 1), 1 + width),
        "zeros": np.where(np.arange(SIZE) < SIZE // 2, 0, spread),
    }[kind]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("max_steps", [8, SIZE])
def test_no_eigenvalue_lies_beyond(dtype, max_steps):
    rng = np.random.default_rng(max_steps)
    kinds = ["definite", "indefinite", "crowded above", "clusters", "isolated", "zeros"]
    keys = jax.random.split(jax.random.key(max_steps), 20 * len(kinds))
    values = [spectrum(kind, rng) for kind in 20 * kinds]
    matrices = jnp.stack(
        [problems.symmetric(k, v, dtype) for k, v in zip(keys, values, strict=True)]
    )

    @jax.jit
    @jax.vmap
    def solve(matrix, key):
        like = jnp.zeros(SIZE, dtype)
        options = {"key": key, "max_steps": max_steps, "which": "magnitude"}
        return ritz_ends(lambda v: matrix @ v, like, **options)

    ends = jax.tree.map(np.asarray, solve(matrices, keys))
    truth = np.linalg.eigvalsh(np.asarray(matrices, np.float64))[:, [0, -1]]
    scale = np.abs(truth).max(axis=1, keepdims=True)
    missed = (ends.values - truth) * [1, -1]
    rounding = 20 * float(jnp.finfo(dtype).eps) * scale
    assert (missed <= ends.margins + rounding).all()
    assert (missed >= -rounding).all()
    if max_steps == 8:  # Where the residual of an end does not bound its error, margins are needed.
        assert (missed > ends.residuals + rounding).any()
    else:
        assert ends.converged.all()
        far = np.abs(ends.values) == np.abs(ends.values).max(axis=1, keepdims=True)
        assert (ends.margins[far] <= 1e-2 * np.broadcast_to(scale, far.shape)[far]).all()


def test_lowest_ends_go_on_until_their_margins_say_something():
    """At 2e-4 of the largest the level of rounding comes too early for float32."""
    values = jnp.append(2e-4, jnp.linspace(6e-4, 1, 299)).astype(jnp.float32)
    solve = jax.jit(lambda k: ritz_ends(lambda v: values * v, values, key=k, which="lowest"))
    ends = solve(jax.random.key(0))
    assert ends.converged
    assert ends.margins[0] <= 2e-5
    assert abs(ends.values[0] - 2e-4) <= ends.margins[0] + 1e-6


def test_a_start_that_nearly_misses_the_top_is_covered(key):
    """The residual is small at the second eigenvalue long before the first is seen."""

    @jax.jit
    @jax.vmap
    def solve(overlap):
        matrix = problems.nearly_missed(key, overlap)
        options = {"key": key, "tol": 1e-2, "max_steps": 60, "which": "magnitude"}
        return ritz_ends(lambda v: matrix @ v, matrix[0], **options)

    ends = solve(jnp.array([2e-3, 5e-3, 2e-2, 1.0]))
    missed = 1.72 - ends.values[:, 1]
    assert (missed <= ends.margins[:, 1]).all()
    assert ends.converged.all()
    assert (missed > 10 * ends.residuals[:, 1])[0]


def test_lowers_for_accelerators():
    matrix = jax.ShapeDtypeStruct((SIZE, SIZE), jnp.float32)
    solve = jax.jit(lambda a: ritz_ends(lambda v: a @ v, a[0], key=jax.random.key(0)))
    exported = jax.export.export(solve, platforms=["cuda", "tpu"])(matrix)
    assert exported.platforms == ("cuda", "tpu")
