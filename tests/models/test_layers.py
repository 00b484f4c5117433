# SPDX-License-Identifier: Apache-2.0
"""Initialisers and the pieces that models share."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.models.layers import BLOCK, Chain, Dense, fan_in_normal, normal


def test_draws_are_normal_and_do_not_repeat_over_blocks(key):
    x = np.sort(normal(2.0)(key, (5, BLOCK)).ravel())
    assert len(np.unique(x)) > 0.99 * x.size
    quantiles = np.searchsorted(x, 2.0 * np.array([-1.959964, -1, 0, 1, 1.959964])) / x.size
    np.testing.assert_allclose(quantiles, [0.025, 0.1586553, 0.5, 0.8413447, 0.975], atol=0.006)


def test_fan_in_is_everything_but_the_last_axis(key):
    weights = fan_in_normal(3.0)(key, (3, 3, 50, 100))
    np.testing.assert_allclose(weights.var(), 3.0 / 450, rtol=0.03)


def test_draws_depend_on_the_key_and_work_under_vmap_and_shapes(key):
    keys = jax.random.split(key, 2)
    both = jax.vmap(lambda key: normal(1.0)(key, (3, 2)))(keys)
    chex.assert_trees_all_equal(both[0], normal(1.0)(keys[0], (3, 2)))
    assert not jnp.allclose(both[0], both[1])
    assert jax.eval_shape(lambda: normal(1.0)(key, (7, 5), jnp.bfloat16)).dtype == jnp.bfloat16


def test_draws_of_a_new_shape_compile_nothing_and_are_those_inside_of_jit(key):
    draw, compiled = normal(0.3), []
    draw(key, (2, 3))  # Compiles what serves every shape.

    def hear(event, *_, **__):
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        found = draw(key, (7, 11))
        assert not compiled
        inside = jax.jit(lambda key: draw(key, (7, 11)))(key)
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    chex.assert_trees_all_equal(found, inside)


def test_chain_applies_its_parts_in_order(key):
    parts = [Dense(i, o, rngs=nnx.Rngs(i)) for i, o in ((2, 3), (3, 4))]
    chain = Chain("part", parts)
    x = jax.random.normal(key, (5, 2), jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        chex.assert_trees_all_equal(chain(x), parts[1](parts[0](x)))
        chex.assert_trees_all_equal(Chain("part", [])(x), x)
    assert chain.part_1 is parts[1]


def test_dense_rejects_empty_sizes():
    with pytest.raises(ValueError, match="in_features must be at least 1, got 0"):
        Dense(0, 2, rngs=nnx.Rngs(0))
