# SPDX-License-Identifier: Apache-2.0
"""Step-size rules against loops in NumPy, their ranges, and their degenerate cases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.optimizers import adagrad_norm_max, dec_sps, inverse_root, ngn, nsgd, sps_max

GRADIENTS = [np.array([3.0, 4.0]), np.array([0.3, -0.4]), np.array([0.0, 2.0])]
VALUES = [2.0, 0.05, 1.5]
TREE = {"a": jnp.zeros(1), "b": jnp.zeros(1)}


def as_tree(gradient):
    return {"a": jnp.asarray(gradient[:1]), "b": jnp.asarray(gradient[1:])}


def updates_of(tx):
    """Updates of three steps, as [3, 2]; all under one jit."""
    update = jax.jit(tx.update)
    state, rows = tx.init(TREE), []
    for gradient, value in zip(GRADIENTS, VALUES, strict=True):
        updates, state = update(as_tree(gradient), state, TREE, value=jnp.asarray(value))
        rows.append(np.concatenate([updates["a"], updates["b"]]))
    return np.stack(rows)


def test_sps_max_is_the_capped_polyak_step():
    found = updates_of(sps_max(c=0.5, max_step_size=0.3, lower_bound=0.01))
    steps = [min((f - 0.01) / (0.5 * g @ g), 0.3) for f, g in zip(VALUES, GRADIENTS, strict=True)]
    assert 0.3 in steps
    assert min(steps) < 0.3
    np.testing.assert_allclose(found, -np.array(steps)[:, None] * GRADIENTS, rtol=1e-12)


def test_sps_max_agrees_with_optax_where_both_are_defined():
    found = updates_of(sps_max(c=1.0, max_step_size=0.3))
    peer = updates_of(optax.polyak_sgd(max_learning_rate=0.3))
    np.testing.assert_allclose(found, peer, rtol=1e-12)


def test_dec_sps_follows_its_recursion_and_never_increases():
    found = updates_of(dec_sps(c=0.7, max_step_size=0.2))
    last, before, steps = 0.2, 0.7, []
    for k, (f, g) in enumerate(zip(VALUES, GRADIENTS, strict=True)):
        now = 0.7 * np.sqrt(k + 1)
        last, before = min(f / (g @ g), before * last) / now, now
        steps.append(last)
    np.testing.assert_allclose(found, -np.array(steps)[:, None] * GRADIENTS, rtol=1e-12)
    assert np.all(np.diff(steps) < 0)


@pytest.mark.parametrize("schedule", [False, True])
def test_ngn_constant_and_decreasing(schedule):
    found = updates_of(ngn(inverse_root(0.8) if schedule else 0.8))
    gammas = [0.8 / np.sqrt(k + 1) if schedule else 0.8 for k in range(3)]
    steps = [
        gamma / (1 + gamma * (g @ g) / (2 * f))
        for gamma, f, g in zip(gammas, VALUES, GRADIENTS, strict=True)
    ]
    np.testing.assert_allclose(found, -np.array(steps)[:, None] * GRADIENTS, rtol=1e-12)


def test_adagrad_norm_max_accumulates_the_largest_gradient():
    found = updates_of(adagrad_norm_max(0.5, initial=2.0))
    # Squares: 25, then .25 (25 stays the largest), then 4 (the same).
    rates = 0.5 / np.sqrt(4 + 25 * np.arange(1, 4))
    np.testing.assert_allclose(found, -rates[:, None] * GRADIENTS, rtol=1e-12)


def test_nsgd_takes_steps_of_one_length_along_the_mean_gradient():
    found = updates_of(nsgd(0.1, momentum=0.6))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 0.1, rtol=1e-12)
    mean = GRADIENTS[0]
    for row, gradient in zip(found, [None, *GRADIENTS[1:]], strict=True):
        mean = mean if gradient is None else 0.6 * mean + 0.4 * gradient
        np.testing.assert_allclose(row, -0.1 * mean / np.linalg.norm(mean), rtol=1e-12)
    found = updates_of(nsgd(inverse_root(0.1), momentum=0.0))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 0.1 / np.sqrt([1, 2, 3]), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_updates_have_the_gradients_dtype_and_a_zero_gradient_moves_nothing(dtype):
    zero = jnp.zeros(3, dtype)
    for tx in (sps_max(), dec_sps(), ngn(1.0), adagrad_norm_max(1.0), nsgd(1.0)):
        updates, state = tx.update(zero, tx.init(zero), zero, value=jnp.zeros((), dtype))
        assert updates.dtype == dtype
        np.testing.assert_array_equal(updates, 0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_hyper_parameters_may_be_injected_under_jit():
    builds = (
        (sps_max, {"max_step_size": 0.3}),
        (dec_sps, {"c": 0.7}),
        (ngn, {"max_step_size": 0.8}),
        (adagrad_norm_max, {"step_size": 0.5}),
        (nsgd, {"step_size": 0.1, "momentum": 0.6}),
    )
    for build, options in builds:
        injected = updates_of(optax.inject_hyperparams(build)(**options))
        np.testing.assert_allclose(injected, updates_of(build(**options)), rtol=1e-6)


def test_step_size_at_a_minimum_and_below_the_bound():
    zero, one = jnp.zeros(1), jnp.ones(1)
    for tx in (sps_max(max_step_size=0.7), dec_sps(max_step_size=0.7), ngn(0.7)):
        assert np.isclose(tx.update(zero, tx.init(zero), value=jnp.zeros(()))[1].step_size, 0.7)
        assert tx.update(one, tx.init(one), value=-jnp.ones(()))[1].step_size == 0


def test_the_loss_is_required_where_it_is_used():
    for tx in (sps_max(), dec_sps(), ngn(1.0)):
        with pytest.raises(TypeError, match="value"):
            tx.update(jnp.ones(1), tx.init(jnp.ones(1)))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: sps_max(c=0.0), "c must be positive, got 0.0"),
        (lambda: dec_sps(max_step_size=-1.0), "max_step_size must be positive, got -1.0"),
        (lambda: ngn(0.0), "max_step_size must be positive"),
        (lambda: inverse_root(0.0), "initial must be positive"),
        (lambda: adagrad_norm_max(1.0, initial=0.0), "initial must be positive"),
        (lambda: nsgd(0.0), "step_size must be positive"),
        (lambda: nsgd(1.0, momentum=1.0), r"momentum must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_are_named(build, words):
    with pytest.raises(ValueError, match=words):
        build()
