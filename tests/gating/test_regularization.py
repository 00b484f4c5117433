# SPDX-License-Identifier: Apache-2.0
"""The penalty against the kernel computed directly, and its slope against differences."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.gating import log_condition_number, log_trace_ratio, with_condition
from tests.gating.cases import KEY

APPLY = lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"]  # noqa: E731
DRAWS = np.random.default_rng(0)
PARAMS = {
    "in": jnp.asarray(DRAWS.normal(size=(3, 8))),
    "out": jnp.asarray(DRAWS.normal(size=(8, 2))),
}
INPUTS = jnp.asarray(DRAWS.normal(size=(6, 3)))
TARGETS = jnp.asarray(DRAWS.normal(size=(6, 2)))
pytestmark = pytest.mark.usefixtures("models_broadcast")


def loss(params, batch):
    inputs, targets = batch
    return jnp.mean((APPLY(params, inputs) - targets) ** 2)


def log_kappa(params, key, num_smallest):
    """By a dense Jacobian in float64."""
    signs = jax.random.rademacher(key, (2, 1), INPUTS.dtype)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = np.asarray(jax.jacobian(lambda v: (APPLY(unravel(v), INPUTS) @ signs).ravel())(flat))
    values = np.linalg.eigvalsh(jacobian @ jacobian.T)
    return np.log(values[-1]) - np.log(values[:num_smallest].mean())


def total_of(**options):
    total = with_condition(loss, 0.3, apply=APPLY, objective=log_condition_number(2), **options)
    return lambda params, step: total(params, (INPUTS, TARGETS), probe=INPUTS, step=step, key=KEY)


def test_it_adds_log_kappa_on_the_steps_that_are_due():
    total = jax.jit(total_of(every=4))
    plain = float(loss(PARAMS, (INPUTS, TARGETS)))
    for step in range(6):
        extra = log_kappa(PARAMS, jax.random.fold_in(KEY, step), 2)
        expected = plain + (4 * 0.3 * extra if step % 4 == 0 else 0)
        np.testing.assert_allclose(float(total(PARAMS, step)), expected, rtol=1e-6)


def test_its_slope_is_that_of_the_kernel_in_the_weights():
    slope = jax.jit(jax.grad(total_of(every=1)))(PARAMS, 1)
    key, size = jax.random.fold_in(KEY, 1), 1e-5
    way = jax.tree.map(lambda leaf: jnp.asarray(DRAWS.normal(size=leaf.shape)), PARAMS)

    def along(t):
        moved = jax.tree.map(lambda leaf, d: leaf + t * d, PARAMS, way)
        return float(loss(moved, (INPUTS, TARGETS))) + 0.3 * log_kappa(moved, key, 2)

    expected = (along(size) - along(-size)) / (2 * size)
    np.testing.assert_allclose(float(optax.tree.vdot(slope, way)), expected, rtol=1e-4)


def test_descent_on_it_lowers_the_condition_number():
    options = {"apply": APPLY, "every": 1, "objective": log_condition_number(1)}
    total = with_condition(lambda *_: jnp.zeros(()), 1.0, **options)
    before = after = PARAMS
    slope = jax.jit(jax.grad(lambda p, step: total(p, None, probe=INPUTS, step=step, key=KEY)))
    for step in range(40):
        after = jax.tree.map(lambda leaf, d: leaf - 0.02 * d, after, slope(after, step))
    low, high = (np.mean([log_kappa(p, k, 1) for k in jax.random.split(KEY, 5)])
                 for p in (after, before))  # fmt: skip
    assert low < high - 0.3


def test_no_weight_is_the_loss_alone_and_other_objectives_serve():
    total = with_condition(loss, 0.0, apply=APPLY)
    value = total(PARAMS, (INPUTS, TARGETS), probe=INPUTS, step=0, key=KEY)
    assert float(value) == float(loss(PARAMS, (INPUTS, TARGETS)))
    total = with_condition(loss, 1.0, apply=APPLY, every=1, objective=log_trace_ratio(1))
    other = total(PARAMS, (INPUTS, TARGETS), probe=INPUTS, step=0, key=KEY)
    assert float(other) > float(value) + log_kappa(PARAMS, jax.random.fold_in(KEY, 0), 1) - 1e-6


@pytest.mark.parametrize(
    ("weight", "every", "said"),
    [(-1.0, 1, "weight must be at least 0"), (float("nan"), 1, "weight must"), (1.0, 0, "every")],
)
def test_bad_numbers_are_refused(weight, every, said):
    with pytest.raises(ValueError, match=said):
        with_condition(loss, weight, apply=APPLY, every=every)
