# SPDX-License-Identifier: Apache-2.0
"""Plain calls compile once; traced ones are the plain function."""

from contextlib import contextmanager

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.compilation import cache, compile_once, forget_compiled

COMPILATIONS = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: (
        COMPILATIONS.append(name) if name.endswith("backend_compile_duration") else None
    )
)
PARAMS, INPUTS = jnp.arange(12.0).reshape(3, 4), jnp.ones((2, 3))


@compile_once("params", "inputs")
def outputs(apply, params, inputs, *, scale=1.0):
    return scale * apply(params, inputs)


def model(params, inputs):
    return jax.nn.relu(inputs @ params)


def scaled_inside(constant):
    inner = jax.jit(lambda y: y[:, :1] * constant)
    return lambda params, inputs: inner(inputs @ params)


@pytest.fixture(autouse=True)
def fresh():
    forget_compiled()
    yield
    forget_compiled()


@contextmanager
def compilations(expected):
    start = len(COMPILATIONS)
    yield
    assert len(COMPILATIONS) - start == expected


def test_the_second_call_compiles_nothing():
    first = outputs(model, PARAMS, INPUTS)
    with compilations(0):
        chex.assert_trees_all_equal(outputs(model, PARAMS, INPUTS), first)
        outputs(model, inputs=INPUTS, params=PARAMS)
    np.testing.assert_array_equal(first, model(PARAMS, INPUTS))


def test_other_values_compile_nothing_and_are_right():
    outputs(model, PARAMS, INPUTS)
    doubled = 2 * PARAMS
    with compilations(0):
        result = outputs(model, doubled, INPUTS)
    np.testing.assert_array_equal(result, model(doubled, INPUTS))


def test_a_function_written_again_compiles_nothing():
    outputs(lambda p, x: jax.nn.relu(x @ p), PARAMS, INPUTS)
    with compilations(0):
        outputs(lambda p, x: jax.nn.relu(x @ p), PARAMS, INPUTS)
        outputs(lambda weights, x: jax.nn.relu(jnp.matmul(x, weights)), PARAMS, INPUTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda: outputs(lambda p, x: jnp.tanh(x @ p), PARAMS, INPUTS),
        lambda: outputs(model, PARAMS, INPUTS, scale=2.0),
        lambda: outputs(model, PARAMS, jnp.ones((5, 3))),
        lambda: outputs(model, PARAMS.astype(jnp.float32), INPUTS.astype(jnp.float32)),
        lambda: outputs(lambda p, x: jax.nn.relu(x @ p + jnp.ones((2, 4))), PARAMS, INPUTS),
    ],
)
def test_other_functions_options_and_shapes_are_other_programs(change):
    outputs(model, PARAMS, INPUTS)
    start = len(COMPILATIONS)
    change()
    assert len(COMPILATIONS) > start


def test_a_changed_setting_is_another_program():
    single = PARAMS.astype(jnp.float32), INPUTS.astype(jnp.float32)
    outputs(model, *single)
    with jax.default_matmul_precision("highest"):
        start = len(COMPILATIONS)
        outputs(model, *single)
        assert len(COMPILATIONS) > start


def test_constants_of_equal_text_are_told_apart():
    # The functions differ by a large array only, which no printed program should hide.
    results = []
    for factor in (1.0, 2.0):
        constant = factor * np.ones((2, 40_000))
        results.append(outputs(lambda p, x, c=constant: (x @ p)[:, :1] * c, PARAMS, INPUTS))
    np.testing.assert_allclose(results[1], 2 * results[0])


def test_constants_of_inner_jitted_functions_are_told_apart():
    results = []
    for factor in (1.0, 2.0):
        constant = jnp.full((2, 40_000), factor)
        results.append(outputs(scaled_inside(constant), PARAMS, INPUTS))
    np.testing.assert_allclose(results[1], 2 * results[0])


def test_what_the_model_reads_may_change():
    factors = [1.0]

    def apply(params, inputs):
        return factors[0] * (inputs @ params)

    before = outputs(apply, PARAMS, INPUTS)
    factors[0] = 3.0
    np.testing.assert_allclose(outputs(apply, PARAMS, INPUTS), 3 * before)


def test_another_rule_for_the_derivative_is_another_program():
    @compile_once("point")
    def slope(function, point):
        return jax.grad(function)(point)

    def ruled(factor):
        function = jax.custom_vjp(lambda x: x)
        function.defvjp(lambda x: (x, None), lambda _, g: (factor * g,))
        return lambda x: function(x)

    assert slope(ruled(2.0), jnp.ones(())) == 2.0
    assert slope(ruled(3.0), jnp.ones(())) == 3.0


def test_traced_arguments_run_the_plain_function():
    direct = jax.grad(lambda p: jnp.sum(model(p, INPUTS) ** 2))(PARAMS)
    through = jax.grad(lambda p: jnp.sum(outputs(model, p, INPUTS) ** 2))(PARAMS)
    np.testing.assert_allclose(through, direct)
    batched = jax.vmap(lambda p: outputs(model, p, INPUTS))(jnp.stack([PARAMS, 2 * PARAMS]))
    assert batched.shape == (2, 2, 4)
    compiled = jax.jit(chex.assert_max_traces(lambda p: outputs(model, p, INPUTS), n=1))
    np.testing.assert_allclose(compiled(PARAMS), model(PARAMS, INPUTS))


def test_traced_values_that_a_model_closes_over_run_the_plain_function():
    def loss(factor):
        return jnp.sum(outputs(lambda p, x: factor * (x @ p), PARAMS, INPUTS))

    total = jnp.sum(INPUTS @ PARAMS)
    np.testing.assert_allclose(jax.grad(loss)(2.0), total)
    np.testing.assert_allclose(jax.vmap(loss)(jnp.arange(3.0)), total * jnp.arange(3.0))
    np.testing.assert_allclose(jax.jit(loss)(2.0), 2 * total)


def test_errors_come_from_the_function():
    with pytest.raises(TypeError, match="missing a required argument"):
        outputs(model, PARAMS)
    with pytest.raises(TypeError, match="dot_general"):
        outputs(model, PARAMS, jnp.ones((2, 7)))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(cache, "_BY_PROGRAM", cache._Kept(2))
    monkeypatch.setattr(cache, "_BY_FUNCTION", cache._Kept(2))
    for size in range(1, 6):
        outputs(model, PARAMS, jnp.ones((size, 3)))
    assert len(cache._BY_PROGRAM.entries) == len(cache._BY_FUNCTION.entries) == 2
    with compilations(0):
        outputs(model, PARAMS, jnp.ones((5, 3)))


def test_numpy_and_python_numbers_are_arrays():
    doubled = compile_once("x")(lambda x: 2 * x)
    assert doubled(3.0) == 6.0
    assert doubled(np.arange(3)).tolist() == [0, 2, 4]
    assert doubled(np.arange(3, dtype=np.float32)).dtype == jnp.float32
