# SPDX-License-Identifier: Apache-2.0
"""Which dtypes a function rounds to, however it hides them."""

import jax
import jax.numpy as jnp
import pytest

from plprune.graph.precision import rounding_dtypes
from plprune.graph.tracing import trace

W, X = jnp.ones((3, 2), jnp.float32), jnp.ones((4, 3), jnp.bfloat16)


def recurrent(w, x):
    return jax.lax.scan(lambda c, row: (jnp.tanh(c * row), c), X[0], x)[1].astype(w.dtype) @ w


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(lambda w, x: x @ w, {"float32"}, id="inputs are cast up"),
        pytest.param(
            lambda w, x: jax.nn.relu(x.reshape(4, 3)[:, ::-1]).astype(w.dtype) @ w,
            {"float32"},
            id="moved before",
        ),
        pytest.param(
            lambda w, x: (x @ w.astype(x.dtype)).astype(w.dtype),
            {"bfloat16"},
            id="parameters cast down, outputs up",
        ),
        pytest.param(recurrent, {"bfloat16", "float32"}, id="inside a scan"),
        pytest.param(
            lambda w, x: jnp.float32(1) * x.astype(jnp.float16).astype(w.dtype) @ w,
            {"float16", "float32"},
            id="another half",
        ),
        pytest.param(
            lambda w, x: jnp.fft.fft(x.astype(w.dtype) @ w).real, {"float32"}, id="complex"
        ),
        pytest.param(lambda w, x: w.astype(jnp.float64)[:, 0] + x[0, 0], {"float64"}, id="double"),
    ],
)
def test_finds_the_dtypes_that_round(function, expected):
    assert {str(d) for d in rounding_dtypes(trace(function, W, X))} == expected
