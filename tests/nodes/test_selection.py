# SPDX-License-Identifier: Apache-2.0
"""Budgets of nodes and of what they cost, rounding, minima and exclusions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found

from plprune.nodes import keep_top, node_flops
from tests.gating.cases import FIRST, INPUTS, PARAMS, SECOND, apply
from tests.gating.cases import GROUPS as OTHERS

GROUPS = found("mlp")  # "0" of 8 nodes, "1" of 6.
SCORES = {"0": jnp.array([3.0, 9, 1, 7, 5, 8, 2, 6]), "1": jnp.array([30.0, 10, 20, 60, 50, 40])}


def counts(keep):
    return {name: int(kept.sum()) for name, kept in keep.items()}


def test_the_best_half_of_every_group_stays():
    keep = keep_top(SCORES, GROUPS, 0.5)
    np.testing.assert_array_equal(keep["0"], SCORES["0"] >= 6)
    np.testing.assert_array_equal(keep["1"], SCORES["1"] >= 40)


@pytest.mark.parametrize(
    ("fraction", "options", "expected"),
    [
        (1.0, {}, {"0": 8, "1": 6}),
        (0.25, {}, {"0": 2, "1": 2}),  # 1.5 rounds up.
        (0.01, {}, {"0": 1, "1": 1}),
        (0.01, {"min_nodes": 3}, {"0": 3, "1": 3}),
        (0.4, {"round_to": 4}, {"0": 4, "1": 4}),
        (0.7, {"round_to": 4}, {"0": 8, "1": 4}),
        (0.9, {"round_to": 4}, {"0": 8, "1": 6}),
        (0.3, {"min_fraction": 0.6}, {"0": 5, "1": 4}),
        (0.5, {"exclude": ("0",)}, {"1": 3}),
        (0.5, {"exclude": ("[01]",)}, {}),
        (0.5, {"budget": "global"}, {"0": 1, "1": 6}),
        (0.5, {"budget": "global", "min_nodes": 3}, {"0": 3, "1": 4}),
        (0.5, {"budget": "global", "round_to": 2}, {"0": 2, "1": 6}),
        (0.5, {"budget": "global", "min_fraction": 0.5}, {"0": 4, "1": 3}),
        # The six of "1" cost 12 of the 20; all of "0" cost 8, and 2 of them are left to afford.
        (0.7, {"budget": "cost", "node_costs": {"0": 1.0, "1": 2.0}}, {"0": 2, "1": 6}),
        (0.5, {"budget": "cost", "node_costs": {"0": 4.0, "1": 1.0}}, {"0": 3, "1": 6}),
        (0.5, {"budget": "cost", "node_costs": {"0": 0.0, "1": 0.0}}, {"0": 8, "1": 6}),
    ],
)
def test_counts(fraction, options, expected):
    assert counts(keep_top(SCORES, GROUPS, fraction, **options)) == expected


def test_ties_go_to_the_first_and_nan_goes_last():
    keep = keep_top({"0": jnp.array([1.0, 1, jnp.nan, 1, 1, jnp.inf, 1, 1])}, GROUPS, 0.5)
    assert jnp.flatnonzero(keep["0"]).tolist() == [0, 1, 3, 5]


@pytest.mark.parametrize("budget", ["global", "cost"])
def test_infinite_scores_rank_first_and_are_paid_for_all_the_same(budget):
    scores = {"0": jnp.full(8, jnp.inf), "1": jnp.full(6, -jnp.inf)}
    keep = keep_top(scores, GROUPS, 0.5, budget=budget, node_costs={"0": 1.0, "1": 1.0})
    assert counts(keep) == {"0": 6, "1": 1}
    nothing = {"0": jnp.full(8, jnp.nan), "1": SCORES["1"]}
    keep = keep_top(nothing, GROUPS, 0.5, budget=budget, node_costs={"0": 1.0, "1": 1.0})
    assert counts(keep) == {"0": 1, "1": 6}


@pytest.mark.parametrize("budget", ["group", "global", "cost"])
def test_it_jits_with_a_traced_fraction(budget):
    options = {"budget": budget, "node_costs": {"0": 1.0, "1": 2.0}}
    keep = jax.jit(lambda s, f: keep_top(s, GROUPS, f, **options))(SCORES, 0.5)
    expected = keep_top(SCORES, GROUPS, 0.5, **options)
    jax.tree.map(np.testing.assert_array_equal, keep, expected)


def test_groups_that_cannot_be_pruned_are_ignored():
    assert keep_top({"2": jnp.ones(3)}, GROUPS, 0.5) == {}
    assert keep_top({"2": jnp.ones(3)}, GROUPS, 0.5, budget="global") == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_fraction": 0.0}, r"keep_fraction must lie in \(0, 1\], got 0.0"),
        ({"budget": "layer"}, r"budget must be one of \('group', .*'cost'\), got 'layer'"),
        ({"min_fraction": 1.5}, r"min_fraction must lie in \[0, 1\], got 1.5"),
        ({"budget": "cost", "node_costs": {"0": 1.0}}, r"node_costs .* missing: \['1'\]"),
        ({"budget": "cost", "node_costs": {"0": 1.0, "1": -1.0}}, "numbers >= 0, got -1.0 of 1"),
        ({"round_to": 0}, "round_to must be at least 1, got 0"),
        ({"min_nodes": 0}, "min_nodes must be at least 1, got 0"),
        ({"exclude": ("conv.*",)}, r"exclude names 'conv\.\*'; the groups are"),
        ({"scores": {"9": jnp.ones(8)}}, r"scores names \['9'\]"),
        ({"scores": {"0": jnp.ones(7)}}, r"scores\['0'\] must have shape \(8,\), got \(7,\)"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"scores": SCORES, "keep_fraction": 0.5, **options}
    with pytest.raises(ValueError, match=message):
        keep_top(groups=GROUPS, **arguments)


def test_flops_of_a_node_are_those_of_its_weights():
    costs = node_flops(apply, PARAMS, OTHERS, INPUTS[:1])
    # 3 products and sums in, 6 out, a bias; tanh counts as the compiler likes.
    assert 2 * (3 + 6) <= costs[FIRST] <= 2 * (3 + 6) + 40
    assert 2 * (8 + 2) <= costs[SECOND] <= 2 * (8 + 2) + 40


def test_widths_within_heads_are_left_alone_unless_asked_for():
    groups = found("attention")
    scores = {name: np.arange(float(size)) for name, size in groups.prunable.items()}
    within = {name for name in scores if groups[name].kind == "head width"}
    assert len(within) == 2
    assert keep_top(scores, groups, 0.5).keys() == scores.keys() - within == {"qkv"}
    assert keep_top(scores, groups, 0.5, within_heads=True).keys() == scores.keys()
    together = keep_top(scores, groups, 0.5, budget="global")
    assert int(sum(kept.sum() for kept in together.values())) == 1
