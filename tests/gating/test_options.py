# SPDX-License-Identifier: Apache-2.0
"""Gates that are chosen among within a budget."""

import jax.numpy as jnp
import optax
import pytest

from plprune.costs import flops
from plprune.gating import pl_gating
from plprune.nodes import node_flops, resize, shrink
from tests.gating.cases import FIRST, GROUPS, INPUTS, KEY, PARAMS, SECOND, apply, stepper

pytestmark = pytest.mark.usefixtures("models_broadcast")


def test_gates_learned_within_a_budget_of_flops_shrink_to_it():
    costs = node_flops(apply, PARAMS, GROUPS, INPUTS[:1])
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


def test_budgets_are_checked_before_any_step():
    options = {"inner": optax.sgd(0.1), "apply": apply, "groups": GROUPS, "key": KEY}
    for wrong, words in (
        ({"budget": "layer"}, "budget must be one of"),
        ({"min_fraction": 2.0}, r"min_fraction must lie in \[0, 1\], got 2.0"),
        ({"budget": "cost", "node_costs": {FIRST: 1.0}}, f"node_costs .* missing: .*{SECOND}"),
    ):
        with pytest.raises(ValueError, match=words):
            pl_gating(keep_fraction=0.5, **options, **wrong)
