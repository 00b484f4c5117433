# SPDX-License-Identifier: Apache-2.0
"""Derivatives that are the same for all examples are found, and no others are taken for such."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from plprune.graph.linear.steady import steady
from plprune.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("models_broadcast")
SIGNS = jnp.array([1.0, -1.0, 1.0, 1.0])


class Values(NamedTuple):
    """Parameters, what is looked at, and the example."""

    p: Array
    h: Array
    x: Array


EXAMPLES = jnp.arange(1.0, 13).reshape(3, 4), -jnp.ones((3, 4))

SAME = {
    "a combination": lambda v: v.h @ v.p @ SIGNS,
    "moved and summed": lambda v: jnp.sum(v.h.T, axis=1) @ v.p,
    "put together": lambda v: jnp.concatenate([v.h @ v.p, v.x])[2:].reshape(-1) / 2,
    "added to the input": lambda v: v.x - 3 * v.h,
    "chosen by a constant": lambda v: jnp.where(SIGNS > 0, v.h, v.x),
    "a factor of parameters": lambda v: jnp.cumsum(v.h * jnp.tanh(v.p)[0], axis=0),
}
OTHER = {
    "bent": lambda v: jnp.tanh(v.h @ v.p),
    "a factor of the example": lambda v: v.h * v.x,
    "a product with the example": lambda v: v.h @ v.x.T,
    "bent further on": lambda v: jnp.exp((v.h @ v.p) @ SIGNS),
    "chosen by the example": lambda v: jnp.where(v.x > 0, v.h, 0),
    "divided by": lambda v: 1 / v.h,
    "one way of two bent": lambda v: v.h + jax.nn.relu(v.h),
    "itself": lambda v: v.h * v.h,
    "a loop": lambda v: jax.lax.scan(lambda c, r: (c * r, c), v.h[0], v.h)[0],
}


def traced(onward):
    """What is looked at is h, the result of the one sine."""
    params, example = jnp.ones((4, 4)), jnp.ones((3, 4))
    graph = trace(lambda p, x: onward(Values(p, jnp.sin(x), x)), params, example)
    (sine,) = (e.outputs[0] for e in graph.equations if e.name == "sin")
    return sine in steady(graph, 1)


@pytest.mark.parametrize("name", SAME)
def test_what_is_linear_behind_is_steady(name):
    assert traced(SAME[name])
    derivatives = [
        jax.jacrev(lambda h, x=x: SAME[name](Values(jnp.eye(4), h, x)))(x) for x in EXAMPLES
    ]
    np.testing.assert_array_equal(*derivatives)


@pytest.mark.parametrize("name", OTHER)
def test_what_the_example_moves_is_not(name):
    assert not traced(OTHER[name])
