# SPDX-License-Identifier: Apache-2.0
"""The experiment in miniature: records, figures, tables, refused settings."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from miniature import record_of

from experiments.alpha_beta import config as settings
from experiments.alpha_beta import figures, measures, run, words
from experiments.alpha_beta import training as runs
from experiments.progress import Progress
from experiments.run_log import Log
from plprune.conditions import Records, Replay, pl_ratio, recorded, replay
from plprune.data import minibatches
from plprune.functional import functional
from plprune.losses import cross_entropy
from plprune.models import MLP
from plprune.training import minibatch_losses

pytestmark = pytest.mark.usefixtures("models_broadcast")
QUICK = settings.PRESETS["quick"]
TINY = dataclasses.replace(
    QUICK, grid=5, samples=400, halfspace_steps=600, examples=64, epochs=2, batch=16,
    widths=(4, 16), first_width=8, conv_examples=64, channels=(2,), resnet_examples=64,
    batches=(16,), optimizers=("adam",), text=600, text_steps=4, lstm_steps=4, text_width=8,
    lstm_width=8, text_batch=2, length=8, heat=5,
)  # fmt: skip
KEYS = {"smallest_alpha", "smallest_beta", "min_angle", "pl_constant"}


def drawn(found):
    record = record_of(TINY, found)
    pictures = figures.draw(record, found[1])
    assert words.findings(record).keys() <= pictures.keys()
    return pictures, words.tables(record)


def one(figure, **changes):
    return run.run(dataclasses.replace(TINY, **changes), figure, progress=Progress())


def test_examples_satisfy_the_condition_where_aiming_and_pl_fail():
    results, curves = one("examples")
    assert list(results) == list(words.EXAMPLES)
    for found in results.values():
        assert found.keys() >= KEYS
        alphas, betas = np.array(found["smallest_alpha"]), np.array(found["smallest_beta"])
        assert (alphas >= betas + 0.1 - 1e-6).all()
    assert max(results["shallow_well"]["quasar_constant"]) < 0
    assert max(results["shallow_well"]["min_angle"]) < 0
    # The smallest alpha of the line is where 4 alpha / 5 = alpha - .1, or just above.
    np.testing.assert_allclose(results["line"]["smallest_alpha"], 0.55, atol=0.05)
    np.testing.assert_allclose(results["two_wells"]["minimum"], 0.49983, atol=6e-6)
    pictures, tables = drawn((results, curves))
    assert pictures.keys() == {"examples"}
    assert tables[0].title == "Which condition holds"
    assert [row[0].text for row in tables[0].rows] == list(results)
    verdicts = [row[-1].text for row in tables[0].rows]
    assert all(verdict.startswith("holds") for verdict in verdicts)


def test_halfspace_measures_the_whole_loss_and_keeps_a_pair():
    results, curves = one("halfspace")
    found = results["halfspace"]
    assert found.keys() >= KEYS
    assert all(np.isfinite(found["smallest_alpha"]))
    whole = curves["halfspace/whole_loss_curve"]
    assert (whole[:, 0] > 0.4).all()  # On the wrong side most examples are misclassified.
    assert (whole[:, -1] < whole[:, 0]).all()
    np.testing.assert_allclose(found["final_loss"], whole[:, -1], atol=0.1)
    assert np.abs(curves["halfspace/whole_angle_curve"]).max() <= 1
    assert drawn((results, curves))[0].keys() == {"halfspace"}


def test_width_has_a_method_per_width_and_repeats_itself(tmp_path):
    log = Log(tmp_path)
    results, curves = run.run(TINY, "width", progress=Progress(None, log))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = {line["task"]: [] for line in lines if line["what"] == "start"}
    assert list(steps) == [f"width_{w}, seed {seed}" for w in (4, 16) for seed in (0, 1)]
    for line in lines:
        if line["what"] == "step":
            steps[line["task"]].append((line["step"], line.get("loss")))
    for task, seen in steps.items():
        method, _, seed = task.partition(", seed ")
        losses = curves[f"{method}/loss_curve"][int(seed)].tolist()
        # The first of two passes tells its losses, the second only that it goes on.
        assert seen == [(i, losses[i - 1] if i <= 8 else None) for i in range(2, 17, 2)]
    assert results.keys() == {"width_4", "width_16"}
    assert all(found.keys() >= KEYS for found in results.values())
    assert drawn((results, curves))[0].keys() == {"width", "width_heat"}
    again, same_curves = one("width", widths=(4,))
    assert again["width_4"] == results["width_4"]
    for name, curve in same_curves.items():
        np.testing.assert_array_equal(curve, curves[name])


@pytest.mark.parametrize(("figure", "method"), [("batch_size", "batch_16"), ("lstm", "lstm")])
def test_resnets_and_text_are_measured_too(figure, method):
    results, curves = one(figure, seeds=2)
    assert results.keys() - {"mlp"} == {method}
    assert results[method].keys() >= KEYS
    assert all(np.isfinite(results[method]["final_loss"]))
    assert figure.partition("_")[0] in drawn((results, curves))[0]


class Noisy(nnx.Module):
    """BatchNorm and dropout at once."""

    def __init__(self, rngs):
        self.norm, self.dropout = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.output = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.output(self.dropout(self.norm(inputs)))


def test_batch_norm_and_dropout_are_the_steps_own():
    """The gap of the last step is to first order its gradient's product with the last move."""
    keys = jax.random.split(jax.random.key(0), 2)
    data = (
        jax.random.normal(keys[0], (32, 4), jnp.float32),
        jax.random.randint(keys[1], (32,), 0, 3),
    )
    training = runs.Training(Noisy, optax.sgd(1e-3), data, 8, 6)
    compiled, key = runs.program(training), jax.random.key(1)
    indices = minibatches(32, 8, 6, key=key)
    params, state = compiled.initial(key)
    found = replay(lambda r: compiled.run(params, state, r, data, indices, key), params)
    at_end = compiled.reference_values(found.reference, state, data, indices, key)
    points = recorded(found.records, at_end)
    assert found.exact
    np.testing.assert_allclose(points.gap[-1] / points.inner[-1], 1, atol=0.05)
    other = compiled.reference_values(found.reference, state, data, indices, jax.random.key(2))
    assert abs(other[-1] - at_end[-1]) > 10 * abs(points.inner[-1])


def test_losses_of_single_examples_serve_models_whose_examples_do_not_meet(monkeypatch):
    monkeypatch.setattr(runs, "EVALUATED", 10)  # The last part is smaller.
    keys = jax.random.split(jax.random.key(0), 2)
    labels = jax.random.randint(keys[1], (32,), 0, 3)
    data = jax.random.normal(keys[0], (32, 4), jnp.float32), labels
    training = runs.Training(lambda rngs: MLP(4, (5,), 3, rngs=rngs), optax.sgd(0.1), data, 8, 6)
    key = jax.random.key(1)
    indices = minibatches(32, 8, 6, key=key)
    compiled = runs.program(training)
    params, state = compiled.initial(key)
    found = compiled.reference_values(params, state, data, indices, key)
    model = functional(training.build(nnx.Rngs(0)))
    expected = minibatch_losses(model.train, cross_entropy, params, {}, data, indices, key=key)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not runs.examples_apart(Noisy(nnx.Rngs(0)))
    assert not runs.examples_apart(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    assert not runs.examples_apart(nnx.BatchNorm(4, rngs=nnx.Rngs(0)))


LARGEST = {
    "width": "width_4096", "channels": "channels_2048", "batch_size": "batch_512",
    "optimizer": "adam", "depth": "depth_18", "lstm": "lstm", "transformer": "transformer",
}  # fmt: skip
PARAMETERS = {"batch_size": 6_573_130, "lstm": 3 * (2 * 1150 + 1) * 4 * 1150 + 1150 * 512 + 256}


@pytest.mark.parametrize("figure", LARGEST)
def test_paper_presets_trace(figure, monkeypatch):
    monkeypatch.setattr("plprune.training.scans_slowly", lambda _: False)  # As on an accelerator.
    paper = settings.PRESETS["paper"]
    text = figure in ("lstm", "transformer")
    shape = (28, 28, 1) if figure == "width" else (32, 32, 3)
    inputs = jax.ShapeDtypeStruct((2048, paper.length), jnp.int32)
    if not text:
        inputs = jax.ShapeDtypeStruct((2048, *shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((2048, paper.length) if text else (2048,), jnp.int32)
    data = (inputs, labels), 256 if text else 10
    training = run.trainings(paper, figure, data)[LARGEST[figure]]()
    compiled, key = runs.program(training), jax.random.key(0)
    params, state = jax.eval_shape(compiled.initial, key)
    indices = jax.ShapeDtypeStruct((training.steps, training.batch), jnp.int32)
    last, records = jax.eval_shape(compiled.run, params, state, params, data[0], indices, key)
    assert jax.tree.structure(last) == jax.tree.structure(params)
    assert records.inner.shape == (training.steps,)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == PARAMETERS.get(figure, count)


def records(values):
    line = jnp.asarray(values)
    return Records(line, line, line, line)


def test_a_run_that_does_not_repeat_is_refused():
    found = Replay(jnp.ones(1), records([1.0, 1.0]), np.array(False), np.array(1))
    with pytest.raises(RuntimeError, match="differ from step 1"):
        measures.measured(TINY, found, jnp.ones(2))


def test_a_run_that_diverged_has_no_numbers():
    found = Replay(jnp.ones(1), records([1.0, np.nan]), np.array(True), np.array(-1))
    numbers = measures.measured(TINY, found, jnp.ones(2))
    assert all(np.isnan(numbers[key]) for key in KEYS)


def test_a_model_without_losses_of_its_parameters_is_refused():
    found = Replay(jnp.ones(1), records([1.0, 1.0]), np.array(True), np.array(-1))
    with pytest.raises(ValueError, match="must not use its state in training mode"):
        measures.measured(TINY, found, jnp.full(2, jnp.nan))


def test_relaxed_pl_is_bounded_where_the_condition_holds():
    """f = |x|^p has |grad f| = p f^(1 - 1/p): power p / (p - 1), and 2 log p throughout."""
    x = np.array([0.1, 1.0, 7.0])
    for p in (2.0, 3.0):
        found = measures.relaxed_pl(pl_ratio(p * x ** (p - 1), x**p, power=p / (p - 1)))
        np.testing.assert_allclose(found, 2 * np.log(p), rtol=1e-6)
    assert measures.relaxed_pl(pl_ratio(np.zeros(1), np.ones(1))) == -np.inf
    assert measures.relaxed_pl(pl_ratio(np.ones(1), np.zeros(1))) == np.inf


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "mnist"}, "dataset must be one of"),
        ({"corpus": "wiki"}, "corpus must be one of"),
        ({"optimizers": ("sgd", "lion")}, "optimizers must be one of"),
        ({"widths": (8, 8)}, "widths must be distinct"),
        ({"channels": ()}, "channels must be distinct and at least one"),
        ({"channels": (0, 4)}, "channels must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"batches": (32, 1024)}, r"batches must lie in \[1, 128\]"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"depths": (9, 50)}, "depths must be one of 9, 18, 34, got 50"),
        ({"resnet_side": 4}, "resnet_side must divide 8 and be at least 8, got 4"),
        ({"conv_side": 3}, "conv_side must divide 8"),
    ],
)
def test_bad_settings_are_named_before_the_run(changes, words):
    with pytest.raises(ValueError, match=words):
        settings.check(dataclasses.replace(QUICK, **changes))
