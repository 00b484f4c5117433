# SPDX-License-Identifier: Apache-2.0
"""Soft gates from logits: their formulas, mean and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from plprune.gating import hard_concrete, sigmoids, straight_through, thresholded
from plprune.gating.relaxations import hard_gates

LOGITS = {"one": jnp.array([2.0, -1.0, 0.5, 0.0]), "two": jnp.array([0.3, -0.2])}
KEY, COUNT = jax.random.key(0), jnp.asarray(3)


def best_half(gates):
    return {name: v > jnp.median(v) for name, v in gates.items()}


def relaxed(relaxation, logits=LOGITS, count=COUNT, choose=best_half):
    gates = relaxation(logits, choose, count, KEY)
    for values in gates.values():
        np.testing.assert_allclose(values.mean(), 1, rtol=1e-6)
    return gates


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def test_sigmoids_follow_their_temperature_schedule():
    values = relaxed(sigmoids(lambda count: 2.0 * count))["one"]
    expected = sigmoid(LOGITS["one"] / 6)
    np.testing.assert_allclose(values, expected / expected.mean(), rtol=1e-6)


def test_thresholded_gates_are_centred_where_the_budget_cuts_and_harden():
    values = relaxed(thresholded(0.5))["one"]
    expected = sigmoid((np.asarray(LOGITS["one"]) - 0.25) / 0.5)  # Between 0.5 and 0.
    np.testing.assert_allclose(values, expected / expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(relaxed(thresholded(1e-3))["one"], [2, 0, 2, 0], atol=1e-6)

    def everything(gates):
        return {name: jnp.ones_like(v, bool) for name, v in gates.items()}

    cold = relaxed(thresholded(1e-3), choose=everything)["one"]
    assert np.isfinite(cold).all()


def test_straight_through_is_hard_forward_and_a_sigmoid_backward():
    np.testing.assert_allclose(relaxed(straight_through())["one"], [2, 0, 2, 0], atol=1e-6)

    def total(logits):
        return jnp.vdot(hard_gates(logits, best_half)["one"], jnp.arange(4.0))

    slope = jax.grad(total)(LOGITS)["one"]
    soft = sigmoid(LOGITS["one"])
    np.testing.assert_allclose(slope, np.arange(4) * soft * (1 - soft), rtol=1e-6)


def test_hard_concrete_reaches_both_ends_and_is_finite_when_all_gates_close():
    many = {"one": jnp.zeros(2000)}
    values = np.asarray(relaxed(hard_concrete(), many)["one"])
    assert (values == 0).mean() > 0.05
    assert (values == values.max()).mean() > 0.05
    closed = hard_concrete()({"one": jnp.full(4, -1e3)}, best_half, COUNT, KEY)["one"]
    np.testing.assert_array_equal(closed, 0)
