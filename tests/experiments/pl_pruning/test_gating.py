# SPDX-License-Identifier: Apache-2.0
"""What each method of pl_pruning asks of the library: its objective, budget, gates and schedule."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.pl_pruning import choosing, gating
from experiments.pl_pruning import run as running
from experiments.pl_pruning.config import PRESETS
from experiments.pl_pruning.data import Examples, Splits
from experiments.pl_pruning.methods import LEARNED, METHODS, SCORED, Method, Score
from experiments.pl_pruning.networks import node_costs
from experiments.pl_pruning.problem import problem_of
from experiments.pl_pruning.settings import network
from experiments.pl_pruning.words import measured
from experiments.progress import Progress
from plprune import scores
from plprune.gating import (
    Setting,
    hard_concrete,
    log_condition_number,
    log_largest_eigenvalue,
    log_median_ratio,
    log_smoothness_ratio,
    log_trace,
    log_trace_ratio,
    thresholded,
    with_risk,
)
from plprune.losses import squared_error
from plprune.nodes.gated_apply import gated

pytestmark = pytest.mark.usefixtures("models_broadcast")

CONFIG = replace(
    PRESETS["quick"],
    network=network("mlp", hidden=(8, 6), activation="tanh"),
    probe_size=16,
    standardise=False,
)
REGIME = replace(
    CONFIG.regimes[0], train_examples=40, batch_size=40, initial_updates=7, risk_weight=0.7
)
OBJECTIVES = {
    "kappa": log_condition_number(),  # And of those that are not named.
    "kappa_outputs": log_condition_number(30, num_combinations=None),
    "kappa_risk": with_risk(log_condition_number(), weight=0.7),
    "lipschitz_mu": log_smoothness_ratio(),
    "lambda_max_only": log_largest_eigenvalue(),
    "trace_only": log_trace(),
    "trace": log_trace_ratio(),
    "median": log_median_ratio(),
}
UPDATES = {"kappa_annealed": 70, "kappa_outputs": 21}
OPTIONS = {
    "kappa_mlp": {"network": "mlp"},
    "kappa_annealed": {"initial_updates": 70},
    "kappa_global": {"budget": "global", "min_fraction": 0.25},
    "kappa_cost": {"budget": "cost", "min_fraction": 0.25, "node_costs": {"a": 3.0, "b": 1.0}},
    "kappa_outputs": {"initial_updates": 21, "probe_size": 8},
}
BUDGET = gating.Budget(0.5, 16, (("a", 3.0), ("b", 1.0)))


@pytest.fixture(scope="module")
def problem():
    draws = np.random.default_rng(0)
    images = draws.normal(size=(60, 4, 4, 1)).astype(np.float32)
    examples = Examples(images, np.arange(60) % 10)
    with jax.numpy_rank_promotion("allow"):
        return problem_of(CONFIG, REGIME, Splits(examples, examples, 10, "noise"), 0)


@pytest.fixture
def asked(problem, monkeypatch):
    """(method, regime) -> the options that the library's transformation is given."""
    given = {}

    def spy(_, apply, groups, **options):
        assert apply is problem.trainer.net.model.apply
        assert groups is problem.dense.groups
        given.update(options)

    def options(method, regime=REGIME):
        monkeypatch.setattr(gating, "pl_gating" if method in LEARNED else "score_gating", spy)
        rest = problem.trainer, problem.dense, optax.identity(), problem.gating_key
        gating.transformation(BUDGET, regime, METHODS[method].by, *rest)
        assert given.pop("key") is problem.gating_key
        assert given.pop("loss") is squared_error
        return given

    return options


@pytest.mark.parametrize("method", LEARNED)
def test_learned_methods_differ_by_these_options_alone(asked, method):
    options = asked(method)
    rules = {name for name in ("relaxation", "gate_optimizer") if options.pop(name, None)}
    assert rules == {
        "kappa_annealed": {"relaxation"},
        "kappa_hard_concrete": {"relaxation"},
        "kappa_outputs": {"relaxation", "gate_optimizer"},
    }.get(method, set())
    del options["objective"]
    shared = {
        "keep_fraction": 0.5, "probe_size": 16, "exclude": (), "within_heads": True,
        "initial_updates": 7,
    }  # fmt: skip
    assert options == shared | OPTIONS.get(method, {})


def alike(one, other):
    """Whether two functions have the same code, and the same numbers and functions inside."""
    if not callable(one) or not callable(other):
        return one == other
    inside = [[cell.cell_contents for cell in f.__closure__ or ()] for f in (one, other)]
    return one.__code__ is other.__code__ and all(map(alike, *inside))


def test_every_method_minimises_its_own_objective(asked, problem):
    for method in LEARNED:
        assert alike(asked(method)["objective"], OBJECTIVES.get(method, OBJECTIVES["kappa"]))
    for one, other in itertools.combinations(OBJECTIVES.values(), 2):
        assert not alike(one, other)
    model = gated(
        lambda p, x: problem.trainer.net.model.apply(p, problem.state.model, x),
        problem.dense.groups,
    )
    inputs, labels = problem.data.inputs[:16], problem.data.targets[:16]
    setting = Setting(model, problem.params, inputs, labels, squared_error, problem.gating_key)
    gates = {
        name: jnp.linspace(0.5, 1.5, size, dtype=jnp.float32)
        for name, size in problem.dense.sizes.items()
    }
    values = jax.jit(lambda gates: [f(setting, gates, gates) for f in OBJECTIVES.values()])(gates)
    assert min(np.diff(sorted(map(float, values)))) > 0.05


@pytest.mark.parametrize("method", UPDATES)
def test_annealed_gates_sharpen_to_a_tenth_over_all_updates(asked, method):
    relax, updates, key = asked(method)["relaxation"], UPDATES[method], jax.random.key(0)
    logits = {"a": jnp.asarray([0.3, -0.2, 0.9, 0.1])}

    def choose(values):
        return {"a": values["a"] > 0.2}

    for count, heat in ((0, 1.0), (updates // 2, 1 - 0.9 * (updates // 2) / updates)):
        expected = thresholded(heat)(logits, choose, count, key)
        np.testing.assert_allclose(relax(logits, choose, count, key)["a"], expected["a"], rtol=1e-5)
    for count in (updates, updates + 1):
        expected = thresholded(0.1)(logits, choose, count, key)
        np.testing.assert_allclose(relax(logits, choose, count, key)["a"], expected["a"], rtol=1e-5)


def test_hard_concrete_gates_are_noisy_and_reach_zero(asked):
    relax = asked("kappa_hard_concrete")["relaxation"]
    logits = {"a": jnp.zeros(64)}
    found = relax(logits, None, 0, jax.random.key(1))["a"]
    np.testing.assert_array_equal(found, hard_concrete()(logits, None, 0, jax.random.key(1))["a"])
    assert 0 < np.mean(np.asarray(found) == 0) < 1


def test_gates_on_all_outputs_move_faster(asked):
    rule = asked("kappa_outputs")["gate_optimizer"]
    updates, _ = rule.update(jnp.asarray([2.0, -3.0]), rule.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [-0.4, 0.4], rtol=1e-5)


@pytest.mark.parametrize("method", SCORED)
def test_scores_are_those_of_the_library(asked, method):
    options = asked(method)
    assert options.pop("score") is scores.SCORES[method]
    examples = 256 if method in ("snip", "grasp", "taylor", "obs", "activation") else 16
    shared = {"keep_fraction": 0.5, "exclude": (), "within_heads": True}
    assert options == shared | {"probe_size": examples}


@pytest.mark.parametrize("method", ["kappa", "magnitude"])
@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_methods_gate_in_training_by_the_regimes_schedule(asked, method, schedule):
    regime = replace(REGIME, period=4, freeze_at=17, schedule=schedule)
    options = asked(method, regime)
    expected = {"period": 4, "freeze_at": 17, "schedule": schedule}
    assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize(("schedule", "power"), [("cubic", 3), ("linear", 1)])
def test_the_kept_fraction_falls_by_the_schedule(problem, schedule, power):
    regime = replace(REGIME, target=0.0, max_steps=20, period=4, freeze_at=17, schedule=schedule)
    kept = choosing.choose(CONFIG, regime, "magnitude", 0.5, 0.01, problem).kept
    fractions = 0.5 + 0.5 * (1 - np.arange(17) // 4 / 4) ** power
    counts = sum(np.floor(fractions * width + 0.5) for width in (8, 6))
    np.testing.assert_allclose(kept, counts / 14, rtol=1e-6)
    told = {"cubic": "falling from 1 along a cubic", "linear": "falling from 1 evenly"}
    assert told[schedule] in measured(record_of(regime))[-1]


def record_of(regime):
    config = vars(CONFIG) | {"network": vars(CONFIG.network), "regimes": [vars(regime)]}
    return {"config": config, "versions": {}}


def test_a_budget_of_flops_is_spent_and_not_exceeded(problem):
    costs = dict(node_costs(CONFIG.network, problem.shape))
    # A multiplication and an addition for every weight that goes, and some for the bias.
    for name, weights in (("hidden_0", 16 + 6), ("hidden_1", 8 + 10)):
        assert 2 * weights <= costs[name] <= 2 * weights + 4
    keep = choosing.choose(CONFIG, REGIME, "kappa_cost", 0.5, 1.0, problem).keep
    spent = sum(costs[name] * kept.sum() for name, kept in keep.items())
    whole = 8 * costs["hidden_0"] + 6 * costs["hidden_1"]
    assert 0.5 * whole - max(costs.values()) < spent <= 0.5 * whole
    assert all(kept.mean() >= 0.25 for kept in keep.values())


def test_every_method_traces(problem):
    probe = problem.data.inputs, problem.data.targets
    for method in (*LEARNED, *SCORED):
        by = METHODS[method].by
        budget = gating.budget_of(CONFIG, by, 0.5, problem)
        gate = gating._gate_once(budget, REGIME, by, problem.trainer, problem.dense)
        arguments = problem.gating_key, problem.params, problem.state.model, probe
        params, keep = jax.eval_shape(gate, *arguments)
        assert jax.tree.structure(params) == jax.tree.structure(problem.params)
        assert {name: leaf.shape for name, leaf in keep.items()} == {
            "hidden_0": (8,),
            "hidden_1": (6,),
        }


@pytest.mark.parametrize("function", ["nowhere:score", "plprune.scores:nothing", "no name"])
def test_a_function_that_is_not_there_is_named_before_any_work(monkeypatch, function):
    own = Method("own", "a score of one's own", ("ink", "solid", "o"), Score(function))
    monkeypatch.setitem(METHODS, "own", own)
    with pytest.raises(ValueError, match=f"method own: no {function}"):
        running.run(replace(CONFIG, methods=("dense", "own")), progress=Progress())
