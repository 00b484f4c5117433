# SPDX-License-Identifier: Apache-2.0
"""Parameters are followed while they are only moved."""

import jax.numpy as jnp

from plprune.graph.linear.origins import origins
from plprune.graph.tracing import trace

INPUTS = jnp.linspace(-1, 1, 15).reshape(5, 3)


def test_parameters_are_followed_through_moves():
    graph = trace(lambda p, x: x @ p.T.reshape(3, 2, 2).reshape(3, 4), jnp.ones((4, 3)), INPUTS)
    (product,) = (e for e in graph.equations if e.name == "dot_general")
    origin = origins(graph, [0])[product.inputs[1]]
    assert origin.leaf == 0
    assert origin.axes == (frozenset({1}), frozenset({0}))
    assert [e.name for e in origin.equations] == ["transpose", "reshape", "reshape"]


def test_casts_to_integers_end_what_is_followed():
    graph = trace(lambda p, x: x @ p.astype(jnp.float32).astype(int), jnp.ones((3, 2)), INPUTS)
    casts = [e for e in graph.equations if e.name == "convert_element_type"]
    known = origins(graph, [0])
    assert [casts[0].outputs[0] in known, casts[1].outputs[0] in known] == [True, False]
