# SPDX-License-Identifier: Apache-2.0
"""Constants against closed forms; degenerate problems are unresolved, never noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.conditions import pl_ratio
from plprune.constants import (
    condition_number,
    lipschitz_constant,
    lipschitz_in_ball,
    lipschitz_on_path,
    minibatch_pl_constants,
    pl_constant,
)
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
DTYPES = [jnp.float32, jnp.float64]


def linear_problem(key, dtype, b=4, d=7):
    inputs = jax.random.normal(key, (b, d), dtype)
    spectrum = np.linalg.svd(np.asarray(inputs, np.float64))[1] ** 2
    return {"w": jnp.zeros((d, 2), dtype)}, inputs, spectrum


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["dense", "svd", "matrix_free"])
def test_linear_model(key, dtype, method):
    params, inputs, spectrum = linear_problem(key, dtype)
    mu = jax.jit(lambda p, x: pl_constant(problems.linear, p, x, method=method, key=key))(
        params, inputs
    )
    assert mu.resolved
    assert abs(mu.value - spectrum.min() / 4) <= mu.error <= 1e-3 * mu.value
    assert mu.value.dtype == mu.error.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_condition_number_of_a_linear_model(key, dtype):
    params, inputs, spectrum = linear_problem(key, dtype)
    kappa = condition_number(problems.linear, params, inputs)
    assert kappa.resolved
    assert abs(kappa.value - spectrum.max() / spectrum.min()) <= kappa.error <= 0.01 * kappa.value


def test_condition_number_with_the_mean_square_loss_is_the_kernel_s(key):
    params, inputs, spectrum = linear_problem(key, jnp.float64)

    def objective(p, x):
        return jnp.sum(problems.linear(p, x) ** 2) / (2 * len(x))

    kappa = condition_number(
        problems.linear, params, inputs, objective=objective, batch=inputs, key=key
    )
    np.testing.assert_allclose(kappa.value, spectrum.max() / spectrum.min(), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spectrum", [[1.0, 2.0, 5.0], [-7.0, 0.0, 3.0], [2.0, 2.0, 2.0]])
def test_lipschitz_constant_of_a_quadratic(key, dtype, spectrum):
    matrix = problems.symmetric(key, np.repeat(spectrum, 4), dtype)
    estimate = lipschitz_constant(problems.quadratic, jnp.ones(12, dtype), matrix, key=key)
    assert estimate.resolved
    assert abs(estimate.value - np.abs(spectrum).max()) <= estimate.error + 1e-6


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_objective_has_no_resolved_lipschitz_constant(key, dtype):
    estimate = lipschitz_constant(lambda w, _: jnp.sum(w), jnp.ones(5, dtype), None, key=key)
    assert not estimate.resolved
    assert estimate.value == 0


def test_not_a_number_stays_out(key):
    params, inputs, _ = linear_problem(key, jnp.float64)
    mu = pl_constant(problems.linear, params, inputs.at[0, 0].set(jnp.nan))
    assert not mu.resolved
    assert mu.value == 0
    assert np.isinf(mu.error)


def test_vmap_over_seeds_matches_loop(key):
    _, inputs, _ = linear_problem(key, jnp.float64)

    def measure(k):
        params = problems.mlp_params(k, (7, 20, 2))
        return condition_number(problems.mlp, params, inputs), pl_constant(
            problems.mlp, params, inputs
        )

    keys = jax.random.split(key, 3)
    looped = [jax.jit(measure)(k) for k in keys]
    batched = jax.jit(jax.vmap(measure))(keys)
    for i, single in enumerate(looped):
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(batched), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-3)


def test_rejects_bad_arguments(key):
    params, inputs, _ = linear_problem(key, jnp.float64)
    with pytest.raises(ValueError, match=r"method must be one of .*'exact'"):
        pl_constant(problems.linear, params, inputs, method="exact")
    with pytest.raises(ValueError, match="key must be given"):
        pl_constant(problems.linear, params, inputs, method="matrix_free")
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
    params, inputs, spectrum = linear_problem(key, jnp.float64)
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


def test_pl_ratio_lies_between_the_ends_of_the_kernel(key):
    params, inputs, spectrum = linear_problem(key, jnp.float64)

    def objective(p, batch):
        return jnp.sum((problems.linear(p, batch) - 1) ** 2) / (2 * len(batch))

    loss, gradient = jax.value_and_grad(objective)(params, inputs)
    ratio = pl_ratio(optax.tree.norm(gradient), loss)
    assert spectrum.min() / 4 <= ratio <= spectrum.max() / 4


def test_path_and_ball_see_the_quartic_s_curvature(key):
    """w^4/12 has second derivative w^2."""

    def quartic(w, _):
        return jnp.sum(w**4) / 12

    path = lipschitz_on_path(
        quartic, jnp.array([-1.0]), jnp.array([3.0]), None, key=key, num_points=5
    )
    np.testing.assert_allclose(path.values, [1, 0, 1, 4, 9], atol=1e-9)
    assert path.lower_bound == path.values[-1]
    ball = lipschitz_in_ball(quartic, jnp.array([1.0]), 0.5, None, key=key, num_points=50)
    assert 1.5 <= ball.lower_bound <= 1.5**2 + 1e-9
    assert (ball.values >= 0.25 - 1e-9).all()
    with pytest.raises(ValueError, match="num_points must be at least 2, got 1"):
        lipschitz_on_path(quartic, jnp.ones(1), jnp.ones(1), None, key=key, num_points=1)
    with pytest.raises(ValueError, match=r"not be negative, got -1\.0"):
        lipschitz_in_ball(quartic, jnp.ones(1), -1.0, None, key=key, num_points=1)
    with pytest.raises(ValueError, match="num_points must be at least 1, got 0"):
        lipschitz_in_ball(quartic, jnp.ones(1), 1.0, None, key=key, num_points=0)
