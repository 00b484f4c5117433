# SPDX-License-Identifier: Apache-2.0
"""Schedules in closed form, and what each budget keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.costs import flops
from plprune.gating import keep_within, kept_fraction, node_flops, pl_gating
from plprune.nodes import resize, shrink
from tests.gating.cases import FIRST, GROUPS, INPUTS, KEY, PARAMS, SECOND, apply, stepper

pytestmark = pytest.mark.usefixtures("models_broadcast")
STEPS = np.arange(0, 15)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("one_shot", np.full(15, 0.2)),
        ("linear", 1 - 0.8 * np.minimum(STEPS / 10, 1)),
        ("cubic", 0.2 + 0.8 * (1 - np.minimum(STEPS / 10, 1)) ** 3),
    ],
)
def test_schedules_are_their_closed_forms(schedule, expected):
    fraction = kept_fraction(schedule, keep_fraction=0.2, num_steps=10)
    np.testing.assert_allclose(jax.vmap(fraction)(jnp.asarray(STEPS)), expected, atol=1e-6)


def test_a_schedule_without_steps_is_there_at_once():
    fraction = kept_fraction("cubic", keep_fraction=0.3, num_steps=0)
    np.testing.assert_allclose(fraction(jnp.asarray(0)), 0.3, rtol=1e-6)


def test_schedules_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match=r"schedule must be one of .*, got 'square'"):
        kept_fraction("square", keep_fraction=0.5, num_steps=3)
    with pytest.raises(ValueError, match=r"keep_fraction must lie in \(0, 1\], got 0.0"):
        kept_fraction("linear", keep_fraction=0.0, num_steps=3)
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        kept_fraction("linear", keep_fraction=0.5, num_steps=-1)


GATES = {FIRST: jnp.array([9.0, 8, 7, 6, 5, 4, 3, 2]), SECOND: jnp.array([6.5, 1, 1, 1, 1, 0])}


def counts(**options):
    keep = keep_within(GATES, GROUPS, 0.5, **options)
    for name, kept in keep.items():  # Always the largest of a group.
        assert float(GATES[name][kept].min()) >= float(jnp.max(jnp.where(kept, -1, GATES[name])))
    return int(keep[FIRST].sum()), int(keep[SECOND].sum())


def test_group_budget_keeps_the_fraction_of_each():
    assert counts() == (4, 3)


def test_global_budget_compares_groups_down_to_a_floor():
    assert counts(budget="global") == (6, 1)
    assert counts(budget="global", min_fraction=0.25) == (5, 2)
    assert counts(budget="global", min_fraction=0.5) == (4, 3)


def test_cost_budget_spends_at_most_its_share():
    # In order: 9, 8, 7, 6.5, 6, 5, ... All cost 8 * 1 + 6 * 4 = 32, and 8 of one with 2 of the
    # other spend half of it.
    assert counts(budget="cost", node_costs={FIRST: 1.0, SECOND: 4.0}) == (8, 2)
    assert counts(budget="cost", node_costs={FIRST: 4.0, SECOND: 1.0}) == (4, 1)


def test_numbers_that_are_none_go_first():
    gates = GATES | {FIRST: GATES[FIRST].at[0].set(jnp.nan)}
    assert not keep_within(gates, GROUPS, 0.5, budget="global")[FIRST][0]


@pytest.fixture(scope="module")
def costs():
    return node_flops(apply, PARAMS, GROUPS, INPUTS[:1])


def test_flops_of_a_node_are_those_of_its_weights(costs):
    # 3 products and sums in, 6 out, a bias; tanh counts as the compiler likes.
    assert 2 * (3 + 6) <= costs[FIRST] <= 2 * (3 + 6) + 40
    assert 2 * (8 + 2) <= costs[SECOND] <= 2 * (8 + 2) + 40


def test_gates_learned_within_a_budget_of_flops_shrink_to_it(costs):
    # Gates of mean 1 in each group: twice 4 and six near 0, and six near 1.
    wanted = {FIRST: jnp.array([5.0] * 2 + [-5.0] * 6), SECOND: jnp.arange(6.0) / 10}

    def alignment(setting, soft, hard):
        del setting, hard
        return -sum(jnp.vdot(v.astype(jnp.float32), soft[name]) for name, v in wanted.items())

    tx = pl_gating(
        optax.sgd(0.1), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=1,
        objective=alignment, relaxation=lambda logits, *_: logits,
        gate_optimizer=optax.sgd(1.0), budget="cost", node_costs=costs,
    )  # fmt: skip
    params, state = stepper(tx)(PARAMS, tx.init(PARAMS))
    first, second = (int(state.keep[name].sum()) for name in (FIRST, SECOND))
    spent = first * costs[FIRST] + second * costs[SECOND]
    half = 4 * costs[FIRST] + 3 * costs[SECOND]
    assert first == 2
    assert spent <= half < spent + costs[SECOND]
    small = shrink(params, GROUPS, state.keep)
    left = flops(resize(apply, GROUPS, state.keep), small, INPUTS[:1])
    # The product and the sum of a weight between two nodes that go are in the costs of both.
    twice = 2 * (8 - first) * (6 - second)
    assert left == flops(apply, PARAMS, INPUTS[:1]) - (2 * half - spent) + twice
