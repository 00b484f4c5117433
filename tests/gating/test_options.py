# SPDX-License-Identifier: Apache-2.0
"""Gates that are chosen among within a budget."""

import jax
import jax.numpy as jnp
import optax
import pytest

from plprune.costs import flops
from plprune.gating import pl_gating, score_gating
from plprune.gating.options import gated_sizes
from plprune.nodes import find_nodes, node_flops, resize, shrink
from plprune.scores import magnitude
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


def attention(p, x):
    q, k, v = (jnp.einsum("btd,dhf->bthf", x, p[name]) for name in ("q", "k", "v"))
    weights = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k))
    return jnp.einsum("bhts,bshf,hfc->bc", weights, v, p["out"])


def test_widths_within_heads_are_gated_only_if_asked_for():
    params = {name: jnp.ones((5, 2, 4)) for name in ("q", "k", "v")}
    params["out"] = jnp.ones((2, 4, 3))
    groups = find_nodes(attention, params, jnp.ones((2, 3, 5)))
    sizes = {groups[name].kind: size for name, size in groups.prunable.items()}
    assert sizes == {"head": 2, "head width": 4}
    assert list(gated_sizes(groups, ()).values()) == [2]
    assert sorted(gated_sizes(groups, (), within_heads=True).values()) == [2, 4]
    heads = next(name for name in groups if groups[name].kind == "head")
    for gating, more in ((pl_gating, {}), (score_gating, {"score": magnitude})):
        options = {"keep_fraction": 0.5, "key": KEY, **more}
        start = gating(optax.sgd(0.1), attention, groups, **options).init(params)
        assert start.keep.keys() == {heads}
        every = gating(optax.sgd(0.1), attention, groups, within_heads=True, **options)
        assert every.init(params).keep.keys() > {heads}
    with pytest.raises(ValueError, match="are widths within heads: gate with within_heads=True"):
        gated_sizes(groups, (heads,))
