# SPDX-License-Identifier: Apache-2.0
"""Absolute limits on parameters, bytes, operations and seconds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found
from zoo import CASES

from plprune import costs
from plprune.nodes import Target, find_nodes, keep_within, resize, shrink
from plprune.nodes.sizes import modelled_flops

pytestmark = pytest.mark.usefixtures("models_broadcast")
SHAPES = {"0": (16, 24), "1": (24, 20), "2": (20, 3)}
PARAMS = {name: jnp.ones(shape, jnp.float32) for name, shape in SHAPES.items()}
INPUTS = jnp.ones((2, 16), jnp.float32)
DRAWS = np.random.default_rng(0)
SCORES = {"0": DRAWS.normal(size=24), "1": 3 * DRAWS.normal(size=20)}


def apply(params, inputs):
    return jnp.tanh(jnp.tanh(inputs @ params["0"]) @ params["1"]) @ params["2"]


GROUPS = find_nodes(apply, PARAMS, INPUTS)


def within(target, **options):
    return keep_within(apply, PARAMS, GROUPS, SCORES, INPUTS, target, **options)


def counts(keep):
    return [int(kept.sum()) for kept in keep.values()]


def parameters(a, b):
    return 16 * a + a * b + 3 * b


def operations(a, b):
    """Of two examples: products, and a tanh for each hidden unit, which the compiler leaves out."""
    return 4 * parameters(a, b)


def assert_best(keep):
    """The largest scores of each group stay."""
    for name, kept in keep.items():
        assert kept.any()
        if not kept.all():
            assert SCORES[name][kept].min() >= SCORES[name][~kept].max()


@pytest.mark.parametrize("budget", ["group", "global"])
@pytest.mark.parametrize("most", [20.0, 100, 333, 500, 901, 924])
@pytest.mark.parametrize("name", ["parameters", "bytes"])
def test_no_node_more_fits(name, most, budget):
    unit = {"parameters": 1, "bytes": 4}[name]
    keep = within(Target(**{name: unit * most}), budget=budget)
    a, b = counts(keep)
    assert_best(keep)
    assert costs.parameters(shrink(PARAMS, GROUPS, keep)) == parameters(a, b) <= most
    for more in ((a + 1, b), (a, b + 1)):
        assert parameters(*more) > most or more[0] > 24 or more[1] > 20


def test_groups_shrink_alike_or_by_their_scores():
    a, b = counts(within(Target(parameters=400)))
    assert abs(a / 24 - b / 20) < 0.1
    wide = within(Target(parameters=400), budget="global")
    order = sorted(np.concatenate(list(SCORES.values())))[::-1]
    assert all(order[k] in np.concatenate([SCORES[n][wide[n]] for n in wide]) for k in range(15))


def test_operations_are_those_of_the_compiler(monkeypatch):
    compiled = []

    def counted(*args):
        compiled.append(None)
        return costs.flops(*args)

    monkeypatch.setattr("plprune.nodes.targets.flops", counted)
    keep = within(Target(flops=2000))
    small, (a, b) = shrink(PARAMS, GROUPS, keep), counts(keep)
    cost = costs.flops(resize(apply, GROUPS, keep), small, INPUTS)
    assert 0.98 * 2000 < cost <= 2000
    assert cost == operations(a, b)
    assert min(operations(a + 1, b), operations(a, b + 1)) > 2000
    assert len(compiled) <= 6
    assert_best(keep)


def test_operations_of_convolutions_and_several_limits():
    case, groups = CASES["resnet"], found("resnet")
    scores = {name: np.arange(float(size)) for name, size in groups.prunable.items()}
    full = costs.flops(case.apply, case.params, case.inputs)
    target = Target(flops=full / 2, parameters=costs.parameters(case.params) / 3)
    keep = keep_within(case.apply, case.params, groups, scores, case.inputs, target)
    small = shrink(case.params, groups, keep)
    assert costs.flops(resize(case.apply, groups, keep), small, case.inputs) <= target.flops
    assert costs.parameters(small) <= target.parameters
    for name in keep:
        more = {n: np.arange(k.size) >= k.size - k.sum() - (n == name) for n, k in keep.items()}
        if not keep[name].all():
            assert costs.parameters(shrink(case.params, groups, more)) > target.parameters


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_modelled_operations_follow_the_compilers(name):
    case, groups = CASES[name], found(name)
    modelled = modelled_flops(case.apply, case.params, groups, case.inputs)
    ratios = []
    for part in (1, 2):
        keep = {n: np.arange(size) < -(-size // part) for n, size in groups.prunable.items()}
        small = jax.eval_shape(partial(shrink, groups=groups, keep=keep), case.params)
        exact = costs.flops(resize(case.apply, groups, keep), small, case.inputs)
        ratios.append(exact / modelled(keep))
    assert ratios[0] == pytest.approx(1, rel=0.3)
    assert ratios[1] == pytest.approx(ratios[0], rel=0.1)


def test_seconds_are_measured_on_the_resized_function():
    measured = []

    def clock(function, params, inputs):
        assert jax.eval_shape(function, params, inputs).shape == (2, 3)
        measured.append(costs.parameters(params))
        return 1e-6 * measured[-1]

    keep = within(Target(seconds=5e-4), clock=clock)
    assert 0.9 * 500 <= parameters(*counts(keep)) <= 500
    assert len(set(measured)) <= 9
    assert len(measured) == 2 * len(set(measured))
    assert_best(keep)
    both = within(Target(seconds=5e-4, bytes=4 * 300), clock=clock)
    assert 0.9 * 300 <= parameters(*counts(both)) <= 300


def test_a_real_clock_ends_below_a_time_that_the_whole_model_takes():
    assert counts(within(Target(seconds=60.0), clock=partial(costs.latency, repeats=1))) == [24, 20]


def test_all_stay_where_all_fit_and_minima_hold():
    assert counts(within(Target(parameters=924, flops=1e9))) == [24, 20]
    alone = {"round_to": 4, "min_nodes": 6, "exclude": "1"}  # What is left alone counts, too.
    assert counts(within(Target(parameters=400), **alone)) == [8]
    assert parameters(8, 20) <= 400 < parameters(12, 20)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (Target(), {}, "must have a limit"),
        (Target(flops=-1.0), {}, "flops must be a number above 0, got -1"),
        (Target(bytes=float("nan")), {}, "bytes must be a number above 0, got nan"),
        (Target(parameters=19), {}, "parameters must be at least 20, the cost of the fewest nodes"),
        (Target(bytes=100), {"min_fraction": 0.5}, "bytes must be at least 1368"),
        (Target(flops=10), {}, r"flops must be at least \d+, the cost"),
        (Target(parameters=99), {"budget": "cost"}, 'budget must be "group" or "global"'),
        (Target(parameters=99), {"round_to": 0}, "round_to must be at least 1"),
        (Target(parameters=99), {"exclude": "no"}, "exclude names 'no'"),
    ],
)
def test_bad_targets_are_refused(target, options, message):
    with pytest.raises(ValueError, match=message):
        within(target, **options)


def test_traced_scores_are_refused():
    with pytest.raises(ValueError, match=r"scores\['0'\] must be concrete"):
        jax.jit(
            lambda s: keep_within(apply, PARAMS, GROUPS, s, INPUTS, Target(parameters=99))
        )(SCORES)  # fmt: skip


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: (PARAMS, INPUTS))
    keep = keep_within(apply, shapes[0], GROUPS, SCORES, shapes[1], Target(flops=2000))
    jax.tree.map(np.testing.assert_array_equal, keep, within(Target(flops=2000)))
