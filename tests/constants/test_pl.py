# SPDX-License-Identifier: Apache-2.0
"""Constants against closed forms; degenerate problems are unresolved, never noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import condition_number, minibatch_pl_constants, pl_constant
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
DTYPES = [jnp.float32, jnp.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["dense", "svd", "matrix_free"])
def test_linear_model(key, dtype, method):
    params, inputs, spectrum = problems.linear_problem(key, dtype)
    mu = jax.jit(lambda p, x: pl_constant(problems.linear, p, x, method=method, key=key))(
        params, inputs
    )
    assert mu.resolved
    assert abs(mu.value - spectrum.min() / 4) <= mu.error <= 1e-3 * mu.value
    assert mu.value.dtype == mu.error.dtype == dtype


def degenerate(name, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), dtype)
    w = {"w": jnp.ones((3, 2), dtype)}
    if name == "few parameters":
        return problems.linear, w, x
    if name == "duplicates":
        wide = jnp.concatenate([x, x**2], axis=1)
        return problems.linear, {"w": jnp.ones((6, 2), dtype)}, wide.at[1].set(wide[0])
    if name == "dead relu":
        dead = {"w": jnp.full((3, 5), -1.0, dtype), "v": jnp.ones((5, 2), dtype)}
        return lambda p, x: jax.nn.relu(x**2 @ p["w"]) @ p["v"], dead, x
    return lambda p, x: 0 * problems.linear(p, x), w, x


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("dense", jnp.float32),
        ("dense", jnp.float64),
        ("svd", jnp.float32),
        ("matrix_free", jnp.float64),
    ],
)
@pytest.mark.parametrize("name", ["few parameters", "duplicates", "dead relu", "zero gradients"])
def test_degenerate_problems_are_unresolved(key, name, dtype, method):
    apply, params, inputs = degenerate(name, dtype)

    @jax.jit
    def measure(p, x):
        mu = pl_constant(apply, p, x, method=method, key=key)
        return mu, condition_number(apply, p, x)

    mu, kappa = measure(params, inputs)
    assert not mu.resolved
    assert mu.value == 0
    assert 0 <= mu.error < 1e-3
    assert not kappa.resolved
    assert np.isinf(kappa.value)


def test_not_a_number_stays_out(key):
    params, inputs, _ = problems.linear_problem(key, jnp.float64)
    mu = pl_constant(problems.linear, params, inputs.at[0, 0].set(jnp.nan))
    assert not mu.resolved
    assert mu.value == 0
    assert np.isinf(mu.error)


def test_rejects_bad_arguments(key):
    params, inputs, _ = problems.linear_problem(key, jnp.float64)
    with pytest.raises(ValueError, match=r"method must be one of .*'exact'"):
        pl_constant(problems.linear, params, inputs, method="exact")
    with pytest.raises(ValueError, match="key must be given"):
        pl_constant(problems.linear, params, inputs, method="matrix_free")
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="must not be 'svd' with a mesh"):
        pl_constant(problems.linear, params, inputs, method="svd", mesh=mesh)
    with pytest.raises(ValueError, match="key must be given"):
        condition_number(problems.linear, params, inputs, objective=problems.quadratic)
    with pytest.raises(ValueError, match="batch must be given"):
        condition_number(problems.linear, params, inputs, objective=problems.quadratic, key=key)


def test_singular_values_resolve_what_the_kernel_cannot():
    """lambda_min/lambda_max = 1e-8 is far below float32's resolution of K, not of J."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    inputs = (left * np.geomspace(1e-4, 1, 6)) @ right
    params, single = {"w": jnp.zeros((6, 1), jnp.float32)}, jnp.asarray(inputs, jnp.float32)
    dense = pl_constant(problems.linear, params, single, method="dense")
    assert not dense.resolved
    assert dense.error >= 1e-8 / 6
    exact = np.linalg.svd(np.asarray(single, np.float64))[1].min() ** 2 / 6
    for method in ("svd", "auto"):
        fine = pl_constant(problems.linear, params, single, method=method)
        assert fine.resolved
        assert abs(fine.value - exact) <= fine.error


def test_parts_of_the_data_bound_the_whole_from_above(key):
    params, inputs, spectrum = problems.linear_problem(key, jnp.float64)
    measure = jax.jit(minibatch_pl_constants, static_argnums=0, static_argnames="num_batches")
    constants = measure(problems.linear, params, inputs, num_batches=2)
    for part, value in zip((inputs[:2], inputs[2:]), constants.batches.value, strict=True):
        exact = np.linalg.svd(np.asarray(part))[1].min() ** 2 / 2
        np.testing.assert_allclose(value, exact, rtol=1e-6)
    assert spectrum.min() / 4 < constants.whole_at_most
    np.testing.assert_allclose(
        constants.whole_at_most, constants.batches.value.min() / 2, rtol=1e-5
    )
    whole = measure(problems.linear, params, inputs, num_batches=1)
    np.testing.assert_allclose(whole.whole_at_most, spectrum.min() / 4, rtol=1e-6)
    with pytest.raises(ValueError, match="divide the 4 examples, got 3"):
        minibatch_pl_constants(problems.linear, params, inputs, num_batches=3)
