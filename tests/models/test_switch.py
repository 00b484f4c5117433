# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts: sizes, routing and balance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.models import CausalTransformer, SwitchTransformer
from plprune.models.switch import Switch

pytestmark = pytest.mark.usefixtures("models_broadcast")
TOKENS = np.array([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])
SIZES = (7, 5, 8, 2, 2, 12)


def test_experts_multiply_the_feed_forward_parameters_alone(count_of):
    dense = count_of(lambda rngs: CausalTransformer(*SIZES, rngs=rngs))
    switch = count_of(lambda rngs: SwitchTransformer(*SIZES, 3, rngs=rngs))
    feed_forward = 8 * 12 + 12 + 12 * 8 + 8
    assert switch - dense == 2 * (2 * feed_forward + 8 * 3 + 3)


def test_each_position_uses_its_own_expert(key, fill):
    net, params, _ = fill(lambda rngs: Switch(4, 6, 3, rngs=rngs))
    x = jax.random.normal(key, (2, 5, 4), jnp.float32)
    outputs = jax.jit(net.apply)(params, {}, x)
    logits = np.asarray(x @ params["router"]["kernel"] + params["router"]["bias"], np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for b, t in np.ndindex(2, 5):
        e = probabilities[b, t].argmax()
        hidden = np.maximum(x[b, t] @ params["hidden_kernel"][e] + params["hidden_bias"][e], 0)
        expected = hidden @ params["output_kernel"][e] + params["output_bias"][e]
        expected = expected * probabilities[b, t, e]
        np.testing.assert_allclose(outputs[b, t], expected, rtol=1e-4, atol=1e-5)


def test_imbalance_is_one_if_even_and_the_number_of_experts_if_one_takes_all(fill):
    options = {"call": lambda module, x: module.imbalance(x)}
    net, params, _ = fill(lambda rngs: Switch(3, 2, 3, rngs=rngs), **options)
    kernel, bias = 50 * jnp.eye(3, dtype=jnp.float32), jnp.zeros(3, jnp.float32)
    routed = {**params, "router": {"kernel": kernel, "bias": bias}}
    even = jnp.eye(3, dtype=jnp.float32)[None]
    one = jnp.zeros((1, 3, 3), jnp.float32).at[..., 1].set(1)
    np.testing.assert_allclose(net.apply(routed, {}, even), [1.0], rtol=1e-5)
    np.testing.assert_allclose(net.apply(routed, {}, one), [3.0], rtol=1e-5)


def test_switch_gives_logits_and_imbalance_of_each_example(fill):
    balanced = {"call": lambda module, tokens: module.balanced(tokens)}
    net, params, _ = fill(lambda rngs: SwitchTransformer(*SIZES, 3, rngs=rngs), **balanced)
    apply = jax.jit(net.apply)
    outputs, imbalance = apply(params, {}, TOKENS)
    assert (outputs.shape, imbalance.shape) == ((2, 5, 7), (2,))
    assert ((imbalance > 0) & (imbalance <= 3 + 1e-5)).all()
    others = apply(params, {}, TOKENS * [[1], [0]])
    np.testing.assert_allclose(others.imbalance[0], imbalance[0], rtol=1e-5)
    assert others.imbalance[1] != imbalance[1]
