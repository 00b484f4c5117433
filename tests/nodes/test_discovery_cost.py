# SPDX-License-Identifier: Apache-2.0
"""Finding nodes costs as much per layer in a deep function as in a shallow one."""

import cProfile
import pstats

import jax
import jax.numpy as jnp
from zoo import normal, shapes

from plprune.nodes import find_nodes


def layer(x, w):
    return x + jnp.tanh(x @ w["up"]) @ w["down"], None


def unrolled(layers, x):
    for k in range(len(layers)):
        x, _ = layer(x, layers[str(k)])
    return x


def scanned(layers, x):
    return jax.lax.scan(layer, x, layers)[0]


def calls(apply, layers):
    """Python and NumPy calls of one search; unlike seconds, these do not depend on the machine."""

    def whole(p, x):
        return apply(p["layers"], x @ p["enter"]) @ p["leave"]

    params = {"layers": layers, **shapes(enter=(3, 4), leave=(4, 2))}
    counted = cProfile.Profile()
    counted.runcall(find_nodes, whole, params, normal(2, 3))
    return pstats.Stats(counted).total_calls


def test_the_cost_is_linear_in_unrolled_layers_and_free_in_stacked_ones():
    def apart(count):
        return calls(unrolled, {str(k): shapes(up=(4, 3), down=(3, 4)) for k in range(count)})

    apart(2)  # What is computed once is out of the way.
    few, some, many = map(apart, (8, 16, 32))
    assert many - some < 2.2 * (some - few)
    stacked = [calls(scanned, shapes(up=(n, 4, 3), down=(n, 3, 4))) for n in (2, 2, 48)]
    assert stacked[2] < 1.3 * stacked[1]
