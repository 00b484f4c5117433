# SPDX-License-Identifier: Apache-2.0
"""Exact zeros, saved values, and when gates change."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.gating import pl_gating, score_gating
from plprune.losses import cross_entropy
from plprune.nodes import find_nodes
from tests.gating.cases import (
    FIRST,
    GRADS,
    GROUPS,
    INPUTS,
    KEY,
    PARAMS,
    SECOND,
    apply,
    forwards,
    recording,
    slices,
    stepper,
)

scored = partial(score_gating, apply=apply, groups=GROUPS, score=forwards, keep_fraction=0.5)
INNERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, weight_decay=0.5),
}
UPPER = slices(PARAMS, np.arange(8) >= 4, np.arange(6) >= 3)  # Kept by `forwards` at half.
LOWER = slices(PARAMS, np.arange(8) < 4, np.arange(6) < 3)


def positive(sign=1.0):
    return sign * jnp.ones_like(INPUTS)


def where(condition, if_true, if_false):
    return jax.tree.map(jnp.where, condition, if_true, if_false)


@pytest.mark.parametrize("name", INNERS)
def test_closed_nodes_are_exactly_zero_and_open_ones_train_as_alone(name):
    inner = INNERS[name]
    tx = scored(inner, key=KEY)
    step = stepper(tx)
    zeros = optax.tree.zeros_like(PARAMS)
    params, state = PARAMS, tx.init(PARAMS)
    alone, alone_state = where(UPPER, PARAMS, zeros), inner.init(PARAMS)
    open_gradients = where(UPPER, GRADS, zeros)
    for _ in range(3):
        params, state = step(params, state, probe=positive())
        updates, alone_state = inner.update(open_gradients, alone_state, alone)
        alone = optax.apply_updates(alone, updates)
        expected = where(UPPER, alone, zeros)
        chex.assert_trees_all_equal(where(UPPER, zeros, params), zeros)
        chex.assert_trees_all_close(params, expected, rtol=1e-6)
        assert set(state.keep) == {FIRST, SECOND}


def test_inner_sees_no_gradient_at_closed_nodes():
    tx = scored(optax.trace(0.9), key=KEY)
    step = stepper(tx)
    _, state = step(PARAMS, tx.init(PARAMS), probe=positive())
    zeros = optax.tree.zeros_like(GRADS)
    chex.assert_trees_all_equal(state.inner.trace, where(UPPER, GRADS, zeros))


def test_saved_values_come_back_when_nodes_reopen():
    tx = scored(optax.sgd(0.0), key=KEY, period=1)
    step = stepper(tx)
    closed, state = step(PARAMS, tx.init(PARAMS), probe=positive())
    chex.assert_trees_all_equal(state.saved, where(UPPER, optax.tree.zeros_like(PARAMS), PARAMS))
    flipped, state = step(closed, state, probe=positive(-1))
    expected = where(LOWER, PARAMS, optax.tree.zeros_like(PARAMS))
    chex.assert_trees_all_close(flipped, expected, rtol=1e-6)
    # What opened again moves with the optimiser at once.
    moving = scored(optax.sgd(0.25), key=KEY, period=1)
    step_of_moving = stepper(moving)
    _, before = step(PARAMS, tx.init(PARAMS), probe=positive())
    moved, _ = step_of_moving(closed, before._replace(inner=moving.init(PARAMS).inner),
                    probe=positive(-1))  # fmt: skip
    expected = where(
        LOWER, jax.tree.map(lambda p: p - 0.25, PARAMS), jax.tree.map(jnp.zeros_like, PARAMS)
    )
    chex.assert_trees_all_close(moved, expected, rtol=1e-5, atol=1e-6)


def test_gates_change_once_per_period_and_not_after_the_freeze():
    tx = scored(optax.sgd(0.0), key=KEY, period=2, freeze_at=4)
    step = stepper(tx)
    params, state = PARAMS, tx.init(PARAMS)
    upper_open = []
    for sign in (1, -1, -1, 1, 1, 1, 1):  # Due at 0 and 2; 4 and 6 come after the freeze.
        params, state = step(params, state, probe=positive(sign))
        upper_open.append(bool(state.keep[FIRST][-1]))
    assert upper_open == [True, True, False, False, False, False, False]


def test_gates_are_updated_in_the_first_call_only_without_a_period():
    tx = scored(optax.sgd(0.0), key=KEY)
    step = stepper(tx)
    params, state = step(PARAMS, tx.init(PARAMS), probe=positive())
    for _ in range(3):
        params, later = step(params, state, probe=positive(-1))
        chex.assert_trees_all_equal(later.keep, state.keep)


def test_the_budget_falls_along_its_schedule_until_the_freeze():
    tx = scored(optax.sgd(0.0), key=KEY, period=2, freeze_at=7, schedule="linear")
    step = stepper(tx)
    params, state, kept = PARAMS, tx.init(PARAMS), []
    for _ in range(8):
        params, state = step(params, state, probe=positive())
        kept.append(int(state.keep[FIRST].sum()))
    # Updates at 0, 2, 4, 6 keep 1, 5/6, 4/6, 1/2 of 8, rounded.
    assert kept == [8, 8, 7, 7, 5, 5, 4, 4]


def test_excluded_groups_stay_whole():
    tx = scored(optax.sgd(0.1), key=KEY, exclude=(FIRST,))
    step = stepper(tx)
    _, state = step(PARAMS, tx.init(PARAMS), probe=positive())
    assert set(state.keep) == {SECOND}


def test_scores_read_saved_values_not_zeros():
    def by_norm(_apply, params, _groups, _probe):
        return {FIRST: jnp.abs(params["a"]), SECOND: jnp.abs(params["b"])}

    tx = scored(optax.sgd(0.0), score=by_norm, key=KEY, period=1)
    step = stepper(tx)
    params, state = step(PARAMS, tx.init(PARAMS))
    _, again = step(params, state)
    chex.assert_trees_all_close(again.gates, state.gates)


def test_zero_updates_leave_all_gates_equal_and_keep_the_first():
    tx = pl_gating(optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=0)
    step = stepper(tx)
    _, state = step(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(state.keep[FIRST], np.arange(8) < 4)


@pytest.fixture(scope="module")
def drawn():
    """``(key, num_examples) -> gradients [4, g]`` of four gate updates, 2 of them in one call.

    Examples are numbers, and their gates' slopes: inputs of the second group's, labels of the first
    six of the first group's; the last two are drawn by the key of the objective.
    """

    def numbers(setting, soft, hard):
        del hard
        size = len(setting.inputs)
        chance = jax.random.uniform(setting.key, (2,), jnp.float32)
        of_labels = jnp.vdot(soft[FIRST][:size], setting.labels)
        return jnp.vdot(soft[SECOND][:size], setting.inputs) + of_labels + soft[FIRST][6:] @ chance

    tx = pl_gating(
        optax.sgd(0.0), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=2, period=1,
        probe_size=6, objective=numbers, relaxation=lambda logits, *_: logits,
        gate_optimizer=recording(4), loss=cross_entropy,
    )  # fmt: skip
    step = stepper(tx)

    def run(key, num_examples):
        probe = (jnp.arange(num_examples, dtype=jnp.float32),) * 2
        params, state = PARAMS, tx.init(PARAMS)
        state = state._replace(network=state.network._replace(key=key))
        for _ in range(3):
            params, state = step(params, state, probe=probe)
        return jax.tree.map(np.asarray, state.network.rule.optimizer)

    return run


def test_every_gate_update_draws_anew_one_example_of_each_equal_run(drawn):
    edges = np.array([0, 5, 10, 15, 20, 25, 31])
    runs = [drawn(key, 31) for key in jax.random.split(KEY, 12)]
    inputs = np.concatenate([run[SECOND] for run in runs])
    np.testing.assert_array_equal(inputs, np.concatenate([run[FIRST][:, :6] for run in runs]))
    assert ((inputs >= edges[:-1]) & (inputs < edges[1:])).all()
    # No two alike: not within the first call, nor at two steps, nor for two keys.
    assert len(np.unique(inputs, axis=0)) == 48
    assert set(inputs.ravel()) == set(range(31))
    chances = np.concatenate([run[FIRST][:, 6:] for run in runs])
    assert len(np.unique(chances, axis=0)) == 48


def test_a_probe_below_its_size_is_used_whole(drawn):
    np.testing.assert_array_equal(drawn(KEY, 4)[SECOND], [[0, 1, 2, 3, 0, 0]] * 4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keep_fraction": 0.0}, r"keep_fraction must lie in \(0, 1\], got 0.0"),
        ({"period": 0}, "period must be at least 1, got 0"),
        ({"freeze_at": 0}, "freeze_at must be at least 1, got 0"),
        ({"probe_size": 0}, "probe_size must be at least 1, got 0"),
        ({"initial_updates": -1}, "initial_updates must be at least 0, got -1"),
        ({"schedule": "cubic"}, "schedule 'cubic' needs period and freeze_at"),
        ({"budget": "none"}, "budget must be one of .*, got 'none'"),
        ({"budget": "cost"}, "node_costs must name every group .*; missing"),
        ({"min_fraction": 2.0}, r"min_fraction must lie in \[0, 1\], got 2.0"),
        ({"network": "cnn"}, "network must be one of .*, got 'cnn'"),
        ({"exclude": (FIRST, SECOND)}, "exclude must leave a group to gate"),
        ({"exclude": ("nothing",)}, "exclude names 'nothing'; the groups are"),
    ],
)
def test_options_out_of_range_are_refused_before_tracing(options, text):
    options = {"keep_fraction": 0.5, "key": KEY} | options
    with pytest.raises(ValueError, match=text):
        pl_gating(optax.sgd(0.1), apply, GROUPS, **options)


def test_calls_without_params_or_probe_are_refused():
    tx = scored(optax.sgd(0.1), key=KEY)
    with pytest.raises(ValueError, match="update needs params"):
        tx.update(GRADS, tx.init(PARAMS), probe=INPUTS)
    with pytest.raises(ValueError, match="update needs probe="):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


def test_a_model_without_nodes_is_refused_with_the_reasons():
    groups = find_nodes(lambda p, x: x @ p, PARAMS["in"], INPUTS)
    with pytest.raises(ValueError, match=r"one that can be pruned and gated; .*output"):
        pl_gating(optax.sgd(0.1), lambda p, x: x @ p, groups, keep_fraction=0.5, key=KEY)
