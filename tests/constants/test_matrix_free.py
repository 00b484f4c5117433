# SPDX-License-Identifier: Apache-2.0
"""Ends from products alone against dense ones, with what is proven and what is not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plprune.constants.ends
from plprune.constants import matrix_free_ends, pl_constant
from plprune.kernels import tangent_kernel

pytestmark = pytest.mark.usefixtures("models_broadcast")


def net(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"] + params["bias"]


def problem(examples=30, width=60, outputs=4, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"in": (9, width), "out": (width, outputs), "bias": (outputs,)}
    params = {name: rng.normal(size=s) / s[0] ** 0.5 for name, s in shapes.items()}
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, rng.normal(size=(examples, 9))))


def spectrum(params, x):
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, x))
    kernel = tangent_kernel(net, *wide)
    return np.linalg.eigvalsh(kernel.reshape(kernel.shape[0] * kernel.shape[1], -1))


@pytest.mark.parametrize(("outputs", "dtype"), [(4, jnp.float32), (20, jnp.float64)])
def test_equals_the_dense_ends(key, outputs, dtype):
    params, x = problem(120 // outputs, outputs=outputs, dtype=dtype)
    values = spectrum(params, x)
    ends = matrix_free_ends(net, params, x, key=key, tile=7)
    assert ends.converged
    assert ends.lowest.value.dtype == dtype
    np.testing.assert_allclose(ends.lowest.value, values[0], rtol=1e-2)
    np.testing.assert_allclose(ends.highest.value, values[-1], rtol=1e-4)
    for estimate, truth in zip(ends[:2], values[[0, -1]], strict=True):
        assert estimate.resolved
        assert abs(estimate.value - truth) <= estimate.error <= 0.3 * truth
    assert values[0] <= ends.lowest_at_most <= 1.02 * values[0]


def test_what_rounding_hides_is_bounded_too(key):
    params, x = problem()
    x = x.at[1].set(x[0])  # lambda_min is 0.
    ends = jax.jit(partial(matrix_free_ends, net, key=key, tile=7))(params, x)
    assert not ends.lowest.resolved
    assert 0 <= ends.lowest.error < 1e-3


def test_few_parameters_leave_a_null_vector(key):
    params, x = problem(width=5)
    lowest = matrix_free_ends(net, params, x, key=key).lowest
    assert not lowest.resolved
    assert lowest.value == 0
    assert lowest.error < 1e-20


def reported(key, params, x, **options):
    """The ends, and what was reported to a function of this call alone."""
    seen = []
    ends = matrix_free_ends(net, params, x, key=key, report=seen.append, **options)
    jax.block_until_ready(ends)
    jax.effects_barrier()
    return ends, seen


def test_what_is_cut_short_bounds_from_above_and_proves_nothing(key):
    params, x = problem()
    truth = spectrum(params, x)[0]
    ends, seen = reported(key, params, x, max_products=4)
    assert not ends.converged
    assert not ends.lowest.resolved
    assert ends.lowest.value == 0
    assert truth < ends.lowest.error == ends.lowest_at_most
    assert [p.num_products for p in seen] == [0]


def test_reports_how_far_it_is(key):
    params, x = problem()
    _, seen = reported(key, params, x)
    assert [p.num_products for p in seen] == list(range(0, 4 * len(seen), 4))
    assert len(seen) > 3
    assert 0 <= seen[0].fraction < seen[-1].fraction == 1
    assert seen[-1].lowest <= seen[0].lowest


def test_the_pl_constant_of_many_outputs_comes_from_it(key, monkeypatch):
    params, x = problem()
    truth = spectrum(params, x)[0] / len(x)
    monkeypatch.setattr(plprune.constants.ends, "_MAX_STEPS", 100)
    mu = pl_constant(net, params, x, method="matrix_free", key=key)
    assert mu.resolved
    assert abs(mu.value - truth) <= mu.error
    assert mu.error > 0.05 * truth  # That of the proof, not of whole Krylov spaces.
    np.testing.assert_allclose(mu.value, truth, rtol=1e-3)


def test_rejects_bad_arguments(key):
    params, x = problem()
    for options, words in (
        ({"tile": 0}, "tile must be at least 1, got 0"),
        ({"max_products": 0}, "max_products must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            matrix_free_ends(net, params, x, key=key, **options)
    with pytest.raises(ValueError, match="at least 64 in all, got 40"):
        matrix_free_ends(net, params, x[:10], key=key)
