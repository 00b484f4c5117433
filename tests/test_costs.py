# SPDX-License-Identifier: Apache-2.0
"""Costs against counts by hand."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune import costs

PARAMS = {"first": jnp.ones((64, 32), jnp.float32), "second": jnp.ones((32, 16), jnp.float32)}
INPUTS = jnp.ones((8, 64), jnp.float32)


def apply(params, inputs):
    return inputs @ params["first"] @ params["second"]


def test_parameters_and_bytes_are_counted():
    params = {**PARAMS, "scale": jnp.ones((), jnp.float64), "none": None}
    assert costs.parameters(params) == 64 * 32 + 32 * 16 + 1
    assert costs.parameter_bytes(params) == 4 * (64 * 32 + 32 * 16) + 8
    assert costs.parameters(jax.eval_shape(lambda: params)) == costs.parameters(params)
    assert costs.parameters({}) == 0


def test_numbers_and_empty_leaves_count():
    params = [2.0, 3, True, np.zeros((0, 5)), jax.random.key(0), np.float32(1)]
    assert costs.parameters(params) == 5
    assert costs.parameter_bytes(params) == 8 + 8 + 1 + 0 + 8 + 4


def test_flops_of_matrix_products_are_two_per_multiplication():
    expected = 2 * 8 * (64 * 32 + 32 * 16)
    assert costs.flops(apply, PARAMS, INPUTS) == expected
    shapes = jax.eval_shape(lambda: PARAMS), jax.ShapeDtypeStruct(INPUTS.shape, INPUTS.dtype)
    assert costs.flops(apply, *shapes) == expected


def test_bytes_accessed_cover_arguments_and_result():
    least = 4 * (INPUTS.size + 64 * 32 + 32 * 16 + 8 * 16)
    assert least <= costs.bytes_accessed(apply, PARAMS, INPUTS) <= 2 * least


def test_latency_is_the_time_of_a_call_without_compilation():
    traces = []

    def slow(x):
        traces.append(None)
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda v: (time.sleep(0.02), v)[1], shape, x)

    assert 0.02 <= costs.latency(slow, np.ones(2), repeats=3) < 0.2
    assert len(traces) == 1
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        costs.latency(slow, np.ones(2), repeats=0)


def test_comparison_shows_both_and_their_ratio():
    half = {"first": PARAMS["first"][:, :16], "second": PARAMS["second"][:16]}
    comparison = costs.compare((apply, PARAMS), (apply, half), INPUTS, repeats=1)
    assert comparison.ratios.parameters == comparison.ratios.flops == 0.5
    lines = str(comparison).splitlines()
    assert lines[0].split() == ["before", "after", "after", "/", "before"]
    assert lines[1].split() == ["parameters", "2,560", "1,280", "0.500"]
    assert len({len(line) for line in lines}) == 1


def test_ratio_to_zero_is_nan():
    zero = costs.Costs(0, 0, 0.0, 0.0, 1.0)
    assert np.isnan(costs.Comparison(zero, zero).ratios.flops)


def test_missing_count_is_an_error(monkeypatch):
    class Compiled:
        def lower(self, *_):
            return self

        compile = lower

        def cost_analysis(self):
            return {"flops": -1.0}

    monkeypatch.setattr(jax, "jit", lambda _: Compiled())
    with pytest.raises(RuntimeError, match="does not report 'flops'"):
        costs.flops(apply, PARAMS, INPUTS)
