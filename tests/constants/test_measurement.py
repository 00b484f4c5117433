# SPDX-License-Identifier: Apache-2.0
"""`measure` is what its parts say, from one kernel, and prints as a table."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plprune
from plprune.compilation import forget_compiled
from plprune.constants import condition_number, lipschitz_constant, measure, pl_constant

COMPILATIONS = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: COMPILATIONS.append(name) if "backend_compile" in name else None
)


def linear(params, inputs):
    return inputs @ params


def half_square(params, batch):
    return jnp.mean(jnp.sum(jnp.square(linear(params, batch)), axis=1)) / 2


@pytest.fixture
def problem(key):
    inputs = jax.random.normal(key, (5, 8))
    gram = np.linalg.eigvalsh(np.asarray(inputs @ inputs.T))
    return jnp.ones((8, 2)), inputs, gram


def test_closed_forms(problem):
    params, inputs, gram = problem
    found = measure(linear, params, inputs)
    expected = (gram[0] / 5, gram[-1] / 5, gram[-1] / gram[0], gram[0], gram[-1])
    for estimate, truth in zip(found, expected, strict=True):
        assert estimate.resolved
        np.testing.assert_allclose(estimate.value, truth, rtol=1e-9)
        assert abs(estimate.value - truth) <= estimate.error


def test_equals_its_parts(problem, key):
    params, inputs, gram = problem
    options = {"objective": half_square, "batch": inputs, "key": key}
    found = measure(linear, params, inputs, **options)
    chex.assert_trees_all_close(found.pl_constant, pl_constant(linear, params, inputs))
    chex.assert_trees_all_close(
        found.lipschitz_constant, lipschitz_constant(half_square, params, inputs, key=key)
    )
    chex.assert_trees_all_close(
        found.condition_number, condition_number(linear, params, inputs, **options), rtol=1e-6
    )
    np.testing.assert_allclose(found.condition_number.value, gram[-1] / gram[0], rtol=1e-6)


def test_prints_as_a_table(problem):
    params, inputs, gram = problem
    lines = repr(measure(linear, params, inputs)).splitlines()
    assert [line[:20].strip() for line in lines] == [
        "PL constant mu", "Lipschitz constant L", "condition number L/m", "lambda_min(K)",
        "lambda_max(K)",
    ]  # fmt: skip
    assert f"{gram[-1]:.6g} ±" in lines[-1]
    twice = jnp.concatenate([inputs, inputs])
    assert "not resolved, at most" in repr(measure(linear, params, twice)).splitlines()[0]


def test_traced_measurements_can_be_shown(problem):
    params, inputs, _ = problem
    shown = []
    jax.jit(lambda p: shown.append(repr(measure(linear, p, inputs))))(params)
    assert shown[0].startswith("Measurement(")


def test_transforms_and_plain_calls_agree(problem):
    params, inputs, _ = problem
    plain = measure(linear, params, inputs)
    compiled = jax.jit(lambda p, x: measure(linear, p, x))(params, inputs)
    batched = jax.vmap(lambda p: measure(linear, p, inputs))(jnp.stack([params, 2 * params]))
    for a, b, c in zip(*map(jax.tree.leaves, (plain, compiled, batched)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-12)
        np.testing.assert_allclose(a, c[0], rtol=1e-2, atol=1e-12)


PLAIN = {
    "measure": lambda f, p, x, _: measure(f, p, x),
    "pl_constant": lambda f, p, x, _: pl_constant(f, p, x),
    "svd": lambda f, p, x, _: pl_constant(f, p, x, method="svd"),
    "matrix_free": lambda f, p, x, k: pl_constant(f, p, x, method="matrix_free", key=k),
    "condition_number": lambda f, p, x, _: condition_number(f, p, x),
    "lipschitz_constant": lambda f, p, x, k: lipschitz_constant(
        lambda q, b: jnp.mean(f(q, b) ** 2), p, x, key=k
    ),
    "tangent_kernel": lambda f, p, x, _: plprune.tangent_kernel(f, p, x),
    "traced_kernel": lambda f, p, x, _: plprune.traced_kernel(f, p, x),
    "leaf_kernels": lambda f, p, x, _: plprune.leaf_kernels(f, p, x),
    "hessian_norm": lambda f, p, x, k: plprune.constants.hessian_norm(
        lambda q, b: f(q, b) ** 2, p, x, key=k
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_later_plain_calls_compile_nothing(name, problem, key):
    params, inputs, _ = problem
    call, doubled = PLAIN[name], 2 * params
    forget_compiled()
    call(lambda p, x: x @ p, params, inputs, key)
    start = len(COMPILATIONS)
    call(lambda p, x: x @ p, params, inputs, key)
    call(lambda weights, x: jnp.matmul(x, weights), doubled, inputs, key)
    assert len(COMPILATIONS) == start


def test_another_model_shares_the_solver(problem):
    params, inputs, _ = problem
    forget_compiled()
    measure(linear, params, inputs)
    start = len(COMPILATIONS)
    measure(lambda p, x: jnp.tanh(x) @ p, params, inputs)
    assert len(COMPILATIONS) - start <= 1  # Its kernel.


def test_bad_arguments(problem, key):
    params, inputs, _ = problem
    with pytest.raises(ValueError, match="key must be given with an objective"):
        measure(linear, params, inputs, objective=half_square, batch=inputs)
    with pytest.raises(ValueError, match="batch must be given with an objective"):
        measure(linear, params, inputs, objective=half_square, key=key)
