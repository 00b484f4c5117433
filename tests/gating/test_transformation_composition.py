# SPDX-License-Identifier: Apache-2.0
"""Gating inside everything optax and jax offer around it."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.gating import (
    hard_concrete,
    log_condition_number,
    pl_gating,
    score_gating,
    straight_through,
    thresholded,
    with_risk,
)
from plprune.losses import cross_entropy
from plprune.nodes import find_nodes, gate
from plprune.storage import load_checkpoint, save_checkpoint
from tests.gating.cases import (
    FIRST,
    GRADS,
    GROUPS,
    INPUTS,
    KEY,
    LABELS,
    PARAMS,
    SECOND,
    apply,
    closed_entries,
    draw,
    forwards,
    slices,
    stepper,
)

learned = partial(
    pl_gating, apply=apply, groups=GROUPS, keep_fraction=0.5, initial_updates=2, probe_size=8
)
scored = partial(score_gating, apply=apply, groups=GROUPS, score=forwards, keep_fraction=0.5)
UPPER = slices(PARAMS, np.arange(8) >= 4, np.arange(6) >= 3)
ONES = jnp.ones_like(INPUTS)


def assert_half_closed(params, keep):
    assert (int(keep[FIRST].sum()), int(keep[SECOND].sum())) == (4, 3)
    assert all((entries == 0).all() for entries in closed_entries(params, keep))
    chex.assert_tree_all_finite(params)


@pytest.fixture(scope="module")
def kappa_step():
    tx = learned(optax.adam(0.01), key=KEY, period=2, freeze_at=5)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state):
        updates, state = tx.update(GRADS, state, params, probe=INPUTS)
        return optax.apply_updates(params, updates), state

    return tx, step


def test_learned_gates_close_half_and_trace_once(kappa_step):
    tx, step = kappa_step
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(6):
        params, state = step(params, state)
        assert_half_closed(params, state.keep)
    assert int(state.step) == 6
    # 2 at once, one each at steps 2 and 4.
    assert int(state.network.rule.count) == 4


def test_checkpoints_carry_everything(kappa_step, tmp_path):
    tx, step = kappa_step
    once = step(PARAMS, tx.init(PARAMS))
    save_checkpoint(tmp_path, 1, once)
    restored = load_checkpoint(tmp_path, like=(PARAMS, tx.init(PARAMS))).tree
    for _ in range(2):
        once, restored = step(*once), step(*restored)
    chex.assert_trees_all_equal(jax.tree.map(_data, once), jax.tree.map(_data, restored))


def _data(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def test_vmap_over_seeds_is_a_loop():
    def run(key):
        tx = learned(optax.adam(0.01), key=key)
        params = draw(key)
        updates, state = tx.update(GRADS, tx.init(params), params, probe=INPUTS)
        return optax.apply_updates(params, updates), state.gates, state.keep

    keys = jax.random.split(KEY, 3)
    batched, one = jax.jit(jax.vmap(run))(keys), jax.jit(run)
    looped = [one(key) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped)
    chex.assert_trees_all_equal(batched[2], stacked[2])
    chex.assert_trees_all_close(batched[:2], stacked[:2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"network": "mlp"},
        {
            "relaxation": thresholded(optax.linear_schedule(1.0, 0.1, 2)),
            "budget": "global",
            "min_fraction": 0.5,
        },
        {"relaxation": hard_concrete()},
        {"relaxation": straight_through()},
    ],
    ids=["mlp", "thresholded", "hard_concrete", "straight_through"],
)
def test_networks_and_relaxations_learn_gates_with_mean_one(options):
    tx = learned(optax.sgd(0.1), key=KEY, **options)
    params, state = stepper(tx)(PARAMS, tx.init(PARAMS))
    assert_half_closed(params, state.keep)
    for gates in state.gates.values():
        np.testing.assert_allclose(gates.mean(), 1, rtol=1e-5)
        assert float(gates.std()) > 1e-3  # They have moved.


@pytest.mark.parametrize(
    "build",
    [
        lambda gate: optax.chain(optax.clip_by_global_norm(1.0), gate(optax.adam(0.1))),
        lambda gate: gate(optax.sgd(optax.cosine_decay_schedule(0.1, 5))),
        lambda gate: gate(optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()),
        lambda gate: optax.MultiSteps(gate(optax.adam(0.1)), 1),
        lambda gate: gate(optax.masked(optax.adamw(0.1, weight_decay=1.0), _matrices)),
        lambda gate: gate(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, 0.9))),
    ],
    ids=["chain", "schedule", "MultiSteps within", "MultiSteps around", "masked", "decay"],
)
def test_closed_nodes_stay_zero_in_compositions(build):
    tx = build(partial(scored, key=KEY))
    step, params, state = stepper(tx), PARAMS, tx.init(PARAMS)
    for _ in range(2):
        params, state = step(params, state, probe=ONES)
    zeros = optax.tree.zeros_like(PARAMS)
    chex.assert_trees_all_equal(jax.tree.map(jnp.where, UPPER, zeros, params), zeros)
    moved = jax.tree.map(lambda p, q: jnp.any(p != q), params, PARAMS)
    assert all(jax.tree.leaves(moved))


def _matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


def test_steps_accumulated_around_gating_are_a_step_on_their_mean_gradient():
    gated = scored(optax.sgd(0.1, momentum=0.9), key=KEY)
    around = optax.MultiSteps(gated, 2)
    step, whole_step = stepper(around), stepper(gated)
    params, state = PARAMS, around.init(PARAMS)
    expected, gated_state = PARAMS, gated.init(PARAMS)
    zeros = optax.tree.zeros_like(PARAMS)
    mean = jax.tree.map(lambda g, p: (g + p) / 2, GRADS, PARAMS)
    for _ in range(2):
        before = params
        params, state = step(params, state, gradients=GRADS, probe=-ONES)
        chex.assert_trees_all_equal(params, before)
        params, state = step(params, state, gradients=PARAMS, probe=ONES)
        expected, gated_state = whole_step(expected, gated_state, gradients=mean, probe=ONES)
        chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(jax.tree.map(jnp.where, UPPER, zeros, params), zeros)


def test_leaves_that_inner_freezes_lose_their_closed_nodes_and_move_in_nothing_else():
    parts = {True: optax.sgd(0.1), False: optax.set_to_zero()}
    tx = scored(optax.partition(parts, _matrices), key=KEY)
    params, _ = stepper(tx)(PARAMS, tx.init(PARAMS), probe=ONES)
    for name, keep in UPPER.items():
        moved = PARAMS[name] - 0.1 if PARAMS[name].ndim == 2 else PARAMS[name]
        np.testing.assert_allclose(params[name], jnp.where(keep, moved, 0), rtol=1e-6)


def test_bfloat16_parameters_close_exactly_with_labels_in_the_probe():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    objective = with_risk(log_condition_number(2), weight=1.0)
    tx = learned(optax.adam(0.1), key=KEY, objective=objective, loss=cross_entropy)
    step = stepper(tx)
    params, state = step(params, tx.init(params), gradients=params, probe=(INPUTS, LABELS))
    assert_half_closed(params, state.keep)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


def by_outputs(apply, params, groups, probe):
    ones = {name: jnp.ones(n) for name, n in groups.prunable.items()}
    model = lambda g: apply(gate(params, groups, g), probe.inputs)  # noqa: E731
    return jax.grad(lambda g: jnp.sum(model(g) ** 2))(ones)


def test_model_state_is_passed_to_the_model():
    def stateful(params, state, inputs):
        return apply(params, inputs / state["scale"])

    state = {"scale": jnp.float32(2.0)}
    groups = find_nodes(lambda v, x: stateful(*v, x), (PARAMS, state), INPUTS)
    results = []
    for function, found, extra, probe in (
        (stateful, groups, {"model_state": state}, INPUTS),
        (apply, GROUPS, {}, INPUTS / 2),
    ):
        tx = score_gating(
            optax.sgd(0.1), function, found, score=by_outputs, keep_fraction=0.5, key=KEY
        )
        results.append(stepper(tx)(PARAMS, tx.init(PARAMS), probe=probe, **extra))
    (pair_params, pair), (plain_params, plain) = results
    assert len(pair.keep) == len(plain.keep) == 2
    chex.assert_trees_all_close(pair_params, plain_params, rtol=1e-5)


def test_inner_receives_further_keywords():
    seen = []

    def update(gradients, state, params=None, *, value):
        del params
        seen.append(value)
        return gradients, state

    inner = optax.GradientTransformationExtraArgs(lambda _: (), update)
    tx = scored(inner, key=KEY)
    jax.eval_shape(lambda p: tx.update(GRADS, tx.init(p), p, probe=INPUTS, value=3), PARAMS)
    assert seen == [3]


def test_a_gated_step_lowers_for_accelerators():
    tx = learned(optax.adamw(0.01), key=KEY, period=2)

    def step(params, state, inputs):
        def objective(p):
            return jnp.mean(cross_entropy(apply(p, inputs), LABELS))

        updates, state = tx.update(jax.grad(objective)(params), state, params, probe=inputs)
        return optax.apply_updates(params, updates), state.keep

    export = jax.export.export(jax.jit(step), platforms=["cuda", "tpu"])
    assert export(PARAMS, tx.init(PARAMS), INPUTS).platforms == ("cuda", "tpu")
