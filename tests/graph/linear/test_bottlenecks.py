# SPDX-License-Identifier: Apache-2.0
"""Channels that reach the output as one number each are found, and nothing else is."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from plprune.graph.linear.bottlenecks import bottleneck
from plprune.graph.tracing import trace

pytestmark = pytest.mark.usefixtures("models_broadcast")
HEAD = jnp.ones((4, 2))
PRODUCED = jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32)


def mean(z):
    return jnp.mean(z, axis=(1, 2))


def max_pooled(z):
    return lax.reduce_window(z, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def moved(z, axis):
    """One entry further, as a pad that extends one end and cuts the other."""
    config = [(0, 0, 0)] * 4
    config[axis] = (1, -1, 0)
    return lax.pad(z, jnp.float32(0), config)


NARROW = {
    "average": lambda z: mean(jax.nn.relu(z + 1.0)) @ HEAD,
    "maximum": lambda z: jnp.max(max_pooled(jnp.tanh(z)), axis=(1, 2)) @ HEAD,
    "two ways that meet": lambda z: mean(jnp.tanh(z) + moved(z, 1)) @ HEAD,
    "nonlinear head": lambda z: jnp.tanh(jax.nn.softmax(mean(z)) @ HEAD) @ HEAD[:2],
    "channels first": lambda z: HEAD.T @ jnp.sum(jnp.moveaxis(z, 3, 0).reshape(4, 36), axis=1),
    "the output itself": mean,
}
WIDE = {
    "flattened": lambda z: z.reshape(1, -1) @ jnp.ones((144, 2)),
    "two positions": lambda z: jnp.mean(z[:, :2, 0], axis=0) @ HEAD,
    "softmax over channels": lambda z: mean(jax.nn.softmax(z)) @ HEAD,
    "centred channels": lambda z: mean(z - jnp.mean(z, axis=-1, keepdims=True)) @ HEAD,
    "mixed channels": lambda z: mean(jnp.tanh(z @ jnp.ones((4, 4)))) @ HEAD,
    "running sums": lambda z: mean(jnp.cumsum(z, axis=3)) @ HEAD,
    "moved channels": lambda z: mean(moved(z, 3)) @ HEAD,
    "turned channels": lambda z: mean(jnp.tanh(z) + z[..., ::-1]) @ HEAD,
    "a way around": lambda z: mean(z) @ HEAD + z[:, 0, 0, :2],
    "another average": lambda z: mean(z) @ HEAD + mean(jnp.sin(z)) @ HEAD,
    "whole numbers": lambda z: jnp.sum(jnp.argmax(z, axis=1), axis=1) @ HEAD,
}


def found(function):
    graph = trace(function, PRODUCED)
    return graph, bottleneck(graph, graph.inputs[0], 3)


@pytest.mark.parametrize("name", NARROW)
def test_one_number_per_channel_is_seen(name):
    graph, narrow = found(NARROW[name])
    assert narrow is not None
    assert max(graph.shape(narrow.end)) == 4


@pytest.mark.parametrize("name", WIDE)
def test_anything_else_is_not(name):
    assert found(WIDE[name])[1] is None


def test_equations_lead_from_start_to_end():
    graph, narrow = found(NARROW["average"])
    names = [graph.equations[k].name for k in narrow.equations]
    assert names == ["add", "custom_jvp_call", "reduce_sum"]
