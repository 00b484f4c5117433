# SPDX-License-Identifier: Apache-2.0
"""Training in pl_pruning: the tuned rate, early stopping, times, and what is carried on."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.pl_pruning import gating, training
from experiments.pl_pruning import run as running
from experiments.pl_pruning.choosing import choose
from experiments.pl_pruning.config import PRESETS
from experiments.pl_pruning.data import Examples, Splits, regime_data
from experiments.pl_pruning.problem import problem_of, small_of
from experiments.pl_pruning.settings import network
from experiments.progress import Progress

pytestmark = pytest.mark.usefixtures("models_broadcast")

QUICK = PRESETS["quick"]
SGD = replace(
    QUICK.regimes[1], train_examples=40, batch_size=8, max_steps=63, rates=(2.0, 1e-9), period=0,
    freeze_at=0, validation=30,
)  # fmt: skip
CONFIG = replace(
    QUICK,
    network=network("mlp", hidden=(6, 5), activation="tanh"),
    regimes=(SGD,),
    methods=("dense", "magnitude"),
    seeds=1,
    probe_size=8,
    log_every=5,
    track=0,
    held_out=4,
    wide_held_out=7,
)


def examples(count, seed):
    """Points and which of three directions each lies along most."""
    draws = np.random.default_rng(seed)
    inputs = draws.normal(size=(count, 4)).astype(np.float32)
    return Examples(inputs, np.argmax(inputs[:, :3] + 0.5 * draws.normal(size=(count, 3)), axis=1))


SPLITS = Splits(examples(120, 0), examples(50, 1), 3, "directions")


def outputs_of(params, inputs):
    """The perceptron in NumPy."""
    x = np.asarray(inputs)
    for name in ("hidden_0", "hidden_1"):
        x = np.tanh(x @ params[name]["kernel"] + params[name]["bias"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def accuracy_of(params, inputs, labels):
    return np.mean(np.argmax(outputs_of(params, inputs), axis=1) == np.asarray(labels))


@pytest.fixture(scope="module")
def finished():
    """Results, curves, the data; the parameters and the times at every logged step of each."""
    logged, spent, add = [], [], training._Log.add

    def watched(log, now, done, *rest):
        if done == 0:
            logged.append([])
            spent.append([])
        logged[-1].append(jax.tree.map(np.asarray, now.params))
        spent[-1].append(rest)
        return add(log, now, done, *rest)

    with jax.numpy_rank_promotion("allow"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "load_splits", lambda _: SPLITS)
        patch.setattr(training._Log, "add", watched)
        results, curves = running.run(CONFIG, progress=Progress())
        data = problem_of(CONFIG, SGD, SPLITS, CONFIG.seed).data
    return SimpleNamespace(results=results, curves=curves, data=data, logged=logged, spent=spent)


def test_accuracy_is_taken_where_that_of_validation_is_best(finished):
    data = finished.data
    found = finished.results["sgd/dense"]
    states = finished.logged[0]
    held_out = [accuracy_of(params, *data.validation) for params in states]
    tests = [accuracy_of(params, data.test_inputs, data.test_targets) for params in states]
    best = int(np.argmax(held_out))
    assert best < len(states) - 1
    assert len({tests[0], tests[best], tests[-1]}) == 3  # Or the test would show nothing.
    np.testing.assert_allclose(found["validation_accuracy"], held_out[best], rtol=1e-6)
    np.testing.assert_allclose(found["test_accuracy"], tests[best], rtol=1e-6)
    np.testing.assert_allclose(found["final_test_accuracy"], tests[-1], rtol=1e-6)


def test_images_to_stop_by_are_in_no_other_set():
    numbered = Examples(np.arange(120)[:, None], np.zeros(120, int))
    aside = Examples(1000 + np.arange(50)[:, None], np.zeros(50, int))
    splits = Splits(numbered, aside, 3, "numbers")
    for on_rest in (False, True):
        regime = replace(SGD, tests_on_rest=on_rest)
        data = regime_data(splits, regime, jax.random.key(0))
        parts = [data.inputs, data.validation[0], data.test_inputs]
        parts = [set(np.asarray(part).ravel().tolist()) for part in parts]
        assert [len(part) for part in parts] == [40, 30, 50 + 50 * on_rest]
        assert len(set.union(*parts)) == sum(map(len, parts))


def test_every_method_trains_at_its_best_rate(finished):
    assert [found["rate"] for found in finished.results.values()] == [[2.0], [2.0]]


def test_rates_are_judged_by_the_loss_or_by_the_steps_to_a_target():
    config = replace(CONFIG, regimes=(replace(SGD, validation=0, rates=(0.3, 1e-9)),))
    (regime,) = config.regimes
    task = SimpleNamespace(advance=lambda *_, **__: None)
    problem = problem_of(config, regime, SPLITS, 0)
    outputs = outputs_of(jax.tree.map(np.asarray, problem.params), problem.data.inputs)
    logs = np.log(np.sum(np.exp(outputs), axis=1)) - outputs[range(40), problem.data.targets]
    merits = training.search(config, regime, "dense", 1.0, problem, task)
    np.testing.assert_allclose(merits[1], logs.mean(), rtol=1e-4)  # It has not moved.
    assert merits[0] < 0.9 * merits[1]
    regime = replace(regime, target=0.9)
    problem = problem_of(config, regime, SPLITS, 0)
    merits = training.search(config, regime, "dense", 1.0, problem, task)
    assert 0 < merits[0] == round(merits[0]) < regime.max_steps
    np.testing.assert_allclose(merits[1], 2 * regime.max_steps + logs.mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("search_seeds", "merits", "best"),
    [
        (0, [[1.0, 2.0, 9.0], [9.0, 3.0, 1.0]], 0.2),
        (1, [[1.0, 2.0, 9.0], [9.0, 3.0, 1.0]], 0.1),
        (2, [[np.inf, 3.0, 2.0], [0.0, 3.0, 2.0]], 0.3),
        (2, [[np.nan, 3.0, 9.0], [0.0, 3.0, 2.0]], 0.2),
    ],
)
def test_rates_are_chosen_on_the_seeds_to_search(monkeypatch, search_seeds, merits, best):
    config = replace(CONFIG, seed=5, seeds=2, search_seeds=search_seeds)
    regime = replace(SGD, rates=(0.1, 0.2, 0.3))
    searched = []

    def search(*arguments):
        searched.append(arguments[4])
        return np.asarray(merits[arguments[4] - 5])

    monkeypatch.setattr(running, "problem_of", lambda *arguments: arguments[3])
    monkeypatch.setattr(running, "_placed", lambda problem: problem)
    monkeypatch.setattr(running, "search", search)
    assert running._best_rate(config, regime, "kappa", 0.5, SPLITS, Progress()) == best
    assert searched == [5, 6][: search_seeds or 2]


def test_time_counts_from_the_choice_of_nodes_on(finished):
    seconds = {name: found["gating_seconds"] for name, found in finished.results.items()}
    assert seconds["sgd/dense"] == [0.0]
    assert seconds["sgd/magnitude"][0] > 0
    for name, spent in seconds.items():
        curve = finished.curves[f"{name}/train_seconds"][0]
        assert curve[0] == spent[0]
        assert (np.diff(curve) > 0).all()
        assert finished.results[name]["train_seconds"] == [curve[-1]]


def test_time_is_that_of_the_steps_taken_in_a_shorter_last_part_too(finished):
    for name, parts in zip(finished.results, finished.spent, strict=True):
        assert [steps for _, steps in parts[1:]] == [5] * 12 + [3]
        passed = np.diff(finished.curves[f"{name}/train_seconds"][0])
        np.testing.assert_allclose(passed, [seconds for seconds, _ in parts[1:]], rtol=1e-6)


def test_wide_kappa_is_that_of_the_kernel_on_more_examples(finished):
    found = finished.results["sgd/dense"]
    flat, unravel = ravel_pytree(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), finished.logged[0][0])
    )

    def outputs(v):
        x = jnp.asarray(finished.data.test_inputs[:7], jnp.float64)
        for name in ("hidden_0", "hidden_1"):
            x = jnp.tanh(x @ unravel(v)[name]["kernel"] + unravel(v)[name]["bias"])
        return (x @ unravel(v)["output"]["kernel"] + unravel(v)["output"]["bias"]).ravel()

    jacobian = np.asarray(jax.jit(jax.jacrev(outputs))(flat))
    for name, count in (("kappa", 4), ("wide_kappa", 7)):
        rows = jacobian[: 3 * count]
        values = np.linalg.eigvalsh(rows @ rows.T)
        np.testing.assert_allclose(found[name], values[-1] / values[0], rtol=1e-5)


def test_a_centred_network_starts_at_zero():
    regime = replace(SGD, loss="square", validation=0)
    found = {}
    for centred in (False, True):
        own = replace(regime, centred=centred)
        problem = problem_of(CONFIG, own, SPLITS, 0)
        small = small_of(CONFIG, own, choose(CONFIG, own, "magnitude", 0.5, 1.0, problem), problem)
        inputs = problem.data.inputs
        dense = problem.trainer.outputs(problem.params, problem.state, inputs)
        found[centred] = dense, small.trainer.outputs(small.first.params, small.first.state, inputs)
        shift = gating._labels(own, problem) - problem.data.targets
        # The probe's labels are those that the network's own outputs are trained to.
        raw = outputs_of(jax.tree.map(np.asarray, problem.params), inputs)
        np.testing.assert_allclose(shift, raw if centred else 0 * raw, rtol=1e-3, atol=1e-5)
    for whole, cut in zip(found[False], found[True], strict=True):
        assert float(jnp.abs(whole).max()) > 0.1
        np.testing.assert_array_equal(cut, jnp.zeros_like(cut))


def test_momentum_of_the_kept_nodes_goes_on_after_shrinking():
    regime = replace(
        SGD, optimizer="momentum", validation=0, period=2, freeze_at=5, rates=(0.1,), max_steps=10
    )
    problem = problem_of(CONFIG, regime, SPLITS, 0)
    choice = choose(CONFIG, regime, "magnitude", 0.5, 0.1, problem)
    first = small_of(CONFIG, regime, choice, problem).first
    before, after = (
        jax.tree.map(np.asarray, state[0].trace) for state in (choice.opt_state, first.opt_state)
    )
    keep = [choice.keep["hidden_0"], choice.keep["hidden_1"]]
    assert [int(kept.sum()) for kept in keep] == [3, 3]
    ends = [np.ones(4, bool), *keep, np.ones(3, bool)]
    for layer, name in enumerate(("hidden_0", "hidden_1", "output")):
        kernel = before[name]["kernel"][np.ix_(ends[layer], ends[layer + 1])]
        assert (kernel != 0).any()
        np.testing.assert_array_equal(after[name]["kernel"], kernel)
        np.testing.assert_array_equal(after[name]["bias"], before[name]["bias"][ends[layer + 1]])


def test_crossings_are_the_first_logged_steps_at_denses_final_loss():
    config = replace(CONFIG, methods=("dense", "kappa"), keep=(0.5,))
    losses = {
        "dense": [[3.0, 1.0, 2.0], [9.0, 8.0, 5.0]],
        "kappa": [[9.0, 4.0, 2.0], [9.0, 6.0, 5.5]],
    }
    curves, results = {}, {}
    for scale, (name, loss) in enumerate(losses.items(), start=1):
        curves[f"sgd/{name}/train_loss"] = np.asarray(loss)
        curves[f"sgd/{name}/step"] = np.asarray([[0, 5, 10]] * 2)
        curves[f"sgd/{name}/train_seconds"] = scale * np.asarray([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
        results[f"sgd/{name}"] = {}
    running._add_crossings(config, SGD, [2.0, 5.0], results, curves)
    assert results["sgd/dense"] == {"steps_to_target": [5.0, 10.0], "target_seconds": [0.2, 0.6]}
    assert results["sgd/kappa"] == {"steps_to_target": [10.0, None], "target_seconds": [0.6, None]}


def test_a_run_without_a_target_of_its_own_is_compared_with_dense(finished):
    goal = finished.results["sgd/dense"]["train_loss"][0]
    for name, found in finished.results.items():
        below = np.flatnonzero(finished.curves[f"{name}/train_loss"][0] <= goal)
        assert bool(len(below)) == (found["target_seconds"][0] is not None)
        if len(below):
            seconds = finished.curves[f"{name}/train_seconds"][0][below[0]]
            assert found["target_seconds"] == [seconds]


def test_steps_that_diverge_while_nodes_are_chosen_lose_the_search_for_a_rate():
    config = replace(CONFIG, regimes=(replace(SGD, period=5, freeze_at=20),))
    (regime,) = config.regimes
    task = SimpleNamespace(advance=lambda *_, **__: None)
    problem = problem_of(config, regime, SPLITS, 0)
    problem = problem._replace(params=jax.tree.map(lambda p: p * jnp.inf, problem.params))
    assert (training.search(config, regime, "dense", 1.0, problem, task) == np.inf).all()
