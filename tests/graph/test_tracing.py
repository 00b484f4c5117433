# SPDX-License-Identifier: Apache-2.0
"""Graphs evaluate to the function, with its derivatives, and know where equations come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.graph.tracing import evaluate, scan_counts, trace

pytestmark = pytest.mark.usefixtures("models_broadcast")
PARAMS = {"a": {"w": jnp.arange(12.0).reshape(3, 4) / 9 - 0.5}, "b": jnp.ones((4, 2))}
INPUTS = jnp.linspace(-1, 1, 15).reshape(5, 3)


@jax.jit
def layer(w, x):
    return jax.nn.relu(x @ w)


def function(params, x):
    h = layer(params["a"]["w"], x)
    h, _ = jax.lax.scan(lambda c, w: (jnp.tanh(c * w), None), h, jnp.arange(3.0))
    h = jax.lax.cond(x.sum() > 0, lambda h: h, jnp.sin, h)
    return {"out": jax.checkpoint(jnp.cos)(h) @ params["b"], "same": x}


def test_evaluation_equals_the_function():
    graph = trace(function, PARAMS, INPUTS)
    flat = evaluate(graph, jax.tree.leaves((PARAMS, INPUTS)))
    expected = function(PARAMS, INPUTS)
    actual = jax.tree.unflatten(graph.out_tree, flat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), actual, expected)


def test_derivatives_are_the_functions_own():
    graph = trace(lambda x: jax.nn.relu(x).sum(), INPUTS)
    slope = jax.grad(lambda x: evaluate(graph, [x])[0])(jnp.zeros_like(INPUTS))
    assert not slope.any()  # The maximum alone would give 1/2.


def test_inputs_are_named_and_shapes_are_enough():
    shaped = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PARAMS)
    graph = trace(function, shaped, INPUTS)
    assert graph.paths == (("a.w", "b"), ("",))
    assert [graph.shape(v) for v in graph.inputs] == [(3, 4), (4, 2), (5, 3)]


def test_a_function_called_twice_has_two_copies():
    graph = trace(lambda w, x: layer(w, layer(w, x)), jnp.eye(3), INPUTS)
    outputs = [v for e in graph.equations for v in e.outputs]
    assert [e.name for e in graph.equations] == ["dot_general", "custom_jvp_call"] * 2
    assert len(set(outputs)) == len(outputs)


@pytest.mark.parametrize("length", [0, 1, 3])  # What is scanned may be as long as what is carried.
def test_scans_tell_constants_carried_and_scanned_apart(length):
    def scanned(w, b, h, xs, scales):
        def step(carry, slices):
            h, n = carry
            x, scale = slices
            return (jnp.tanh(h @ w + b + x) * scale, n + 1), h

        return jax.lax.scan(step, (h, 0), (xs, scales))

    arguments = jnp.eye(3), jnp.ones(3), jnp.ones(3), jnp.ones((length, 3)), jnp.ones(length)
    (equation,) = (e for e in trace(scanned, *arguments).equations if e.name == "scan")
    assert scan_counts(equation) == (2, 2)
    assert len(equation.inputs) == 6


def test_scans_without_carried_or_scanned_arrays_are_counted():
    mapped = trace(lambda x: jax.lax.map(jnp.sin, x), INPUTS)
    assert scan_counts(mapped.equations[0]) == (0, 0)
    repeated = trace(
        lambda x: jax.lax.scan(lambda c, _: (c * c, None), x, None, length=2)[0], INPUTS
    )
    assert scan_counts(repeated.equations[0]) == (0, 1)


def test_unused_equations_are_dropped():
    graph = trace(lambda x: (jnp.sort(x), x + 1)[1], INPUTS)
    assert [e.name for e in graph.equations] == ["add"]


def test_the_source_is_the_users_line_even_inside_the_library():
    graph = trace(lambda x: jnp.sort(x).sum(), INPUTS)
    assert all("test_tracing.py" in e.source for e in graph.equations)


def test_a_reshape_that_moves_axes_is_two_equations():
    graph = trace(lambda x: jax.lax.reshape(x, (15,), (1, 0)), INPUTS)
    assert [e.name for e in graph.equations] == ["transpose", "reshape"]
    assert graph.shape(graph.equations[0].outputs[0]) == (3, 5)
    (flat,) = evaluate(graph, [INPUTS])
    np.testing.assert_array_equal(flat, INPUTS.T.ravel())
