# SPDX-License-Identifier: Apache-2.0
"""Loops: what is known of closed nodes before one need not hold after it."""

import jax
import jax.numpy as jnp
import pytest

from plprune.nodes import find_nodes

PARAMS, INPUTS = {"w": jnp.ones((3, 6))}, jnp.ones((5, 3))


def while_loop(step, h):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, step(c[1])), (0, h))[1]


def scan(step, h):
    return jax.lax.scan(lambda c, _: (step(c), None), h, length=3)[0]


@pytest.mark.parametrize("loop", [while_loop, scan])
def test_zeros_must_survive_a_step(loop):
    def summed(step):
        return lambda p, x: loop(step, jnp.tanh(x @ p["w"])).sum(-1)

    kept = find_nodes(summed(lambda h: h * jnp.cos(h)), PARAMS, INPUTS, mode="baked")
    assert kept.prunable == {"w": 6}
    lost = find_nodes(summed(lambda h: h + jnp.cos(h)), PARAMS, INPUTS, mode="baked")
    assert "the entries of a closed node are not zero there" in lost["w"].reason


def test_what_only_prints_in_a_loop_says_nothing_of_nodes():
    def apply(p, x):
        def step(h):
            jax.debug.print("{}", h.sum())
            return h + 1.0

        h = jax.lax.while_loop(lambda h: h.min() < 5, step, jnp.abs(x).sum(1))
        return jnp.tanh(x @ p["w"]) @ p["o"] * h[:, None]

    params = {"w": jnp.ones((3, 4)), "o": jnp.ones((4, 2))}
    assert find_nodes(apply, params, jnp.ones((5, 3))).prunable == {"w": 4}
