# SPDX-License-Identifier: Apache-2.0
"""Errors bound the truth or the number is unresolved: spectra, scales, dtypes, kinds of leaves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import (
    condition_number,
    hessian_norms,
    jacobian_norm,
    lipschitz_constant,
    pl_constant,
    seen_in_ball,
)
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
SIZE = 12
HALF = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}


def spectra(count, seed):
    """Non-negative, of condition 1 to 1e14, with clusters, zeros and single outliers."""
    rng, found = np.random.default_rng(seed), []
    for kind in range(count):
        low, width = 10.0 ** -rng.uniform([0, 1], 14)
        spread = np.geomspace(low, 1, SIZE)
        found.append(
            [
                spread,
                1 - spread / 2,
                np.repeat([1, low], SIZE // 2) * (1 + width * rng.uniform(size=SIZE)),
                np.where(np.arange(SIZE) < 3, 0, spread),
                np.append(np.linspace(low, 1, SIZE - 1), 1 + width),
            ][kind % 5]
        )
    return np.stack(found), rng


def factors(count, seed):
    """Inputs whose Gram matrices have these spectra."""
    values, rng = spectra(count, seed)

    def orthogonal(rows):
        return np.linalg.qr(rng.normal(size=(count, rows, SIZE)))[0]

    return orthogonal(SIZE) * np.sqrt(values)[:, None] @ orthogonal(2 * SIZE).transpose(0, 2, 1)


def assert_honest(estimate, truth, is_clear):
    value, error, resolved = (np.asarray(a) for a in estimate)
    assert not np.isnan(value).any()
    assert (np.abs(value - truth)[resolved] <= error[resolved]).all()
    bounded = np.isfinite(value)  # An unresolved condition number is infinite.
    assert (np.abs(value - truth) <= error)[bounded].all()
    assert resolved[is_clear].all()
    return resolved


@pytest.mark.parametrize(("dtype", "scales"), [
    (jnp.float32, [1e-28, 1e-16, 1, 1e30]), (jnp.float64, [1e-280, 1e-150, 1, 1e300]),
])  # fmt: skip
def test_errors_bound_the_ends_of_kernels_at_every_scale(dtype, scales):
    inputs = np.concatenate([s**0.5 * factors(10, 7 + k) for k, s in enumerate(scales)])
    inputs = jnp.asarray(inputs, dtype)
    truth = np.linalg.svd(np.asarray(inputs, np.float64), compute_uv=False) ** 2
    low, high, kappa = truth[:, -1], truth[:, 0], truth[:, 0] / np.maximum(truth[:, -1], 1e-320)

    @jax.jit
    @jax.vmap
    def measure(x, key):
        problem = problems.linear, {"w": jnp.zeros((2 * SIZE, 1), dtype)}, x
        mu = {m: pl_constant(*problem, method=m, key=key) for m in ("dense", "svd", "matrix_free")}
        return mu, condition_number(*problem), jacobian_norm(*problem)

    mu, ratio, norm = measure(inputs, jax.random.split(jax.random.key(0), len(inputs)))
    eps = float(jnp.finfo(dtype).eps)
    is_clear = low > 2e3 * eps * high
    for estimate in mu.values():
        assert_honest(estimate, low / SIZE, is_clear)
    fine = assert_honest(mu["svd"], low / SIZE, is_clear)
    assert fine.sum() > is_clear.sum()
    assert_honest(ratio, kappa, is_clear)
    assert_honest(norm, high**0.5, np.ones(len(high), bool))


@pytest.mark.parametrize(("dtype", "low", "high"), [
    (jnp.float32, -45, 38), (jnp.float64, -323, 308),
])  # fmt: skip
def test_lipschitz_constants_are_right_or_unresolved_over_the_whole_range(dtype, low, high, key):
    curvatures = np.append(np.linspace(-0.5, 0.9, 60), 1.0)
    scales = np.geomspace(10.0**low, 10.0**high, high - low + 1).astype(dtype)

    @jax.jit
    @jax.vmap
    def measure(scale):
        def objective(w, scale):
            return scale * jnp.sum(jnp.asarray(curvatures, dtype) * w**2) / 2

        return lipschitz_constant(objective, jnp.ones(61, dtype), scale, key=key)

    estimate = measure(scales)
    margin = float(jnp.finfo(dtype).tiny / jnp.finfo(dtype).eps)
    resolved = assert_honest(estimate, scales.astype(np.float64), scales > 1.1 * margin)
    value = np.asarray(estimate.value, np.float64)[resolved]
    np.testing.assert_allclose(value, scales[resolved], rtol=1e-5)
    assert (estimate.error[resolved] < 2e-3 * value).all()
    assert not resolved[scales < 0.9 * margin].any()


def test_iterations_that_are_cut_short_say_so(key):
    """The residual after eight products knows some eigenvalue, not the largest."""
    curvatures = jnp.linspace(-1.0, 1.0, 400) ** 3

    @partial(jax.jit, static_argnums=1)
    @partial(jax.vmap, in_axes=(0, None))
    def measure(key, max_steps):
        def objective(w, _):
            return jnp.sum(curvatures * w**2) / 2

        options = {"key": key, "max_steps": max_steps}
        return lipschitz_constant(objective, jnp.ones(400), None, **options)

    keys = jax.random.split(key, 40)
    none = np.zeros(40, bool)
    assert_honest(measure(keys, 8), np.ones(40), none)
    rough = measure(keys, 20)
    assert_honest(rough, np.ones(40), ~none)
    assert (np.abs(rough.value - 1) > 1e-4).any()


def test_small_residuals_at_another_eigenvalue_are_no_errors_of_the_largest(key):
    @jax.jit
    @jax.vmap
    def measure(overlap):
        matrix = problems.nearly_missed(key, overlap)
        options = {"key": key, "tol": 1e-2, "max_steps": 60}
        return lipschitz_constant(problems.quadratic, jnp.ones(120), matrix, **options)

    estimate = measure(jnp.array([2e-3, 5e-3]))
    assert_honest(estimate, np.full(2, 1.72), np.ones(2, bool))
    assert (estimate.value < 1.71).all()


@pytest.mark.parametrize("name", HALF)
def test_half_precision_has_the_errors_of_half_precision(name, key):
    """Parameters, inputs and outputs in float32, and products that are not."""
    inputs = jnp.asarray(factors(10, 3), jnp.float32)
    truth = np.linalg.svd(np.asarray(inputs, np.float64), compute_uv=False) ** 2

    def model(params, x):
        half = HALF[name]
        return (x.astype(half) @ params["w"].astype(half)).astype(jnp.float32)

    @jax.jit
    @jax.vmap
    def measure(x):
        problem = model, {"w": jnp.ones((2 * SIZE, 1), jnp.float32)}, x
        mu = [pl_constant(*problem, method=m, key=key) for m in ("dense", "svd", "matrix_free")]
        top = lipschitz_constant(lambda p, x: jnp.sum(model(p, x) ** 2) / 2, *problem[1:], key=key)
        return mu, condition_number(*problem), top

    mu, kappa, top = measure(inputs)
    none = np.zeros(len(inputs), bool)
    for estimate in mu:
        resolved = assert_honest(estimate, truth[:, -1] / SIZE, none)
        assert resolved.sum() < 5
    assert_honest(kappa, truth[:, 0] / np.maximum(truth[:, -1], 1e-30), none)
    assert_honest(top, truth[:, 0], ~none)
    assert (top.error > float(jnp.finfo(HALF[name]).eps) * truth[:, 0]).all()


def test_half_precision_parameters_alone_are_raised(key):
    """As for kernels: then all is computed in float32, and its errors are those of float32."""
    params = {"w": jnp.ones((2 * SIZE, 1), jnp.bfloat16)}
    inputs = jnp.asarray(factors(1, 0)[0], jnp.float32)
    norm = jacobian_norm(problems.linear, params, inputs)
    assert norm.resolved
    assert norm.error < 1e-4
    top = lipschitz_constant(
        lambda p, x: jnp.sum(problems.linear(p, x) ** 2) / 2, params, inputs, key=key
    )
    np.testing.assert_allclose(top.value, norm.value**2, rtol=1e-5)
    assert top.value.dtype == jnp.float32


def test_precision_below_the_parameters_counts():
    """Parameters in float64 do not make a model exact that casts them to float32."""
    inputs = jnp.asarray(factors(5, 1)[0])

    def model(params, x):
        return x.astype(jnp.float32) @ params["w"].astype(jnp.float32)

    estimate = pl_constant(model, {"w": jnp.ones((2 * SIZE, 1))}, inputs, method="dense")
    truth = np.linalg.svd(inputs, compute_uv=False)[-1] ** 2 / SIZE
    assert abs(estimate.value - truth) <= estimate.error
    assert estimate.error > 1e-7 / SIZE


def test_leaves_that_are_not_floating_point_are_held_fixed(key):
    others = {
        "int": jnp.int32(3),
        "python int": 2,
        "bool": jnp.arange(3) > 0,
        "key": jax.random.key(3),
        "none": None,
        "empty": jnp.zeros((0, 3)),
    }
    params = {"w": jnp.array([1.0, 2.0, 3.0]), "others": others, "t": 1.0}

    def objective(p, x):
        curved = jnp.sum(x * p["w"] ** 2 * p["others"]["python int"]) / 4
        return curved + p["t"] * jax.random.uniform(p["others"]["key"])

    x = jnp.array([1.0, -4.0, 2.0])
    options = {"key": key}
    np.testing.assert_allclose(lipschitz_constant(objective, params, x, **options).value, 4)
    seen = seen_in_ball(lambda p: objective(p, x), params, 0.0, num_points=1, **options)
    np.testing.assert_allclose(seen.values, objective(params, x))
    bent = hessian_norms(lambda p, x: objective(p, x[0])[None], params, x[None], **options)
    np.testing.assert_allclose(bent.value, 4, rtol=1e-6)


def test_refuses_by_path_what_has_no_real_derivative(key):
    params = {"a": jnp.ones(2), "b": [jnp.ones(2, complex)]}

    def model(p, x):
        return x * jnp.real(p["b"][0] @ p["a"])[None, None]

    def objective(p, x):
        return jnp.sum(model(p, x))

    x = jnp.ones((1, 1))
    match = r"no complex numbers, got complex128 at \['b'\]\[0\]"
    with pytest.raises(ValueError, match=match):
        pl_constant(model, params, x)
    for call in (lipschitz_constant, hessian_norms):
        with pytest.raises(ValueError, match=match):
            call(objective, params, x, key=key)
    with pytest.raises(ValueError, match="at least one floating-point number"):
        lipschitz_constant(objective, {"n": 3}, x, key=key)
    with pytest.raises(ValueError, match=r"objective must return a scalar, got shape \(1,\)"):
        lipschitz_constant(lambda p, x: p["a"][:1] * x[0], {"a": jnp.ones(2)}, x, key=key)
    with pytest.raises(ValueError, match="objective must return real numbers, got complex128"):
        lipschitz_constant(lambda p, _: p["a"][0] * 1j, {"a": jnp.ones(2)}, x, key=key)
    with pytest.raises(ValueError, match="apply must return real numbers, got int32"):
        pl_constant(lambda _, x: x.astype(jnp.int32), {"a": jnp.ones(2)}, x)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("columns", [0, 1])
@pytest.mark.parametrize("outputs", [0, 1])
def test_empty_shapes(rows, columns, outputs, key):
    problem = problems.linear, {"w": jnp.ones((columns, outputs))}, jnp.ones((rows, columns))
    mu = pl_constant(*problem, method="matrix_free", key=key)
    kappa, norm = condition_number(*problem), jacobian_norm(*problem)
    exists = rows * columns * outputs == 1
    for found, value in ((mu, 1.0), (kappa, 1.0), (norm, 1.0)):
        assert found.resolved == exists
        if exists:
            np.testing.assert_allclose(found.value, value)
    assert kappa.value == (1 if exists else np.inf)
