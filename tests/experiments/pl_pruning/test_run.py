# SPDX-License-Identifier: Apache-2.0
"""The pl_pruning experiment at toy size: what its record promises, and what it refuses."""

import dataclasses
from dataclasses import replace

import jax
import matplotlib.figure
import numpy as np
import pytest

from experiments.pl_pruning import data, training
from experiments.pl_pruning import run as running
from experiments.pl_pruning.config import PRESETS, check
from experiments.pl_pruning.figures import draw
from experiments.pl_pruning.figures.regime import in_time
from experiments.pl_pruning.methods import SCORED
from experiments.pl_pruning.settings import key_of, network, regime_of, tracked_steps
from experiments.pl_pruning.words import measured
from experiments.progress import Progress
from experiments.resuming import Kept
from experiments.run_folder import normalised
from plprune.records import summarise

pytestmark = pytest.mark.usefixtures("models_broadcast")

QUICK = PRESETS["quick"]
GD, SGD = QUICK.regimes
TINY = replace(
    QUICK,
    network=network("mlp", hidden=(16, 16), activation="tanh"),
    methods=("dense", "kappa"),
    regimes=(
        replace(GD, max_steps=75, target=0.3, initial_updates=2),
        replace(SGD, max_steps=40, rates=(0.03, 0.3), period=5, freeze_at=15, initial_updates=2),
    ),
    seeds=2,
    track=3,
)


def ran(config, kept=None):
    """Its results and curves; one way to set the flag, or everything would be compiled again."""
    with jax.numpy_rank_promotion("allow"):
        return running.run(config, progress=Progress(kept))


@pytest.fixture(scope="module")
def tiny():
    return ran(TINY)


def test_the_record_has_every_method_regime_and_seed(tiny):
    results, curves = tiny
    assert set(results) == {f"{r}/{m}" for r in ("gd", "sgd") for m in TINY.methods}
    for name, metrics in results.items():
        assert all(len(values) == 2 for values in metrics.values())
        assert curves[f"{name}/train_loss"].shape[0] == 2


def test_half_of_the_nodes_are_gone_and_the_function_is_the_masked_one(tiny):
    results, _ = tiny
    for name, metrics in results.items():
        dense = name.endswith("dense")
        assert metrics["kept_nodes"] == [1.0 if dense else 0.5] * 2
        widths = (16, 16) if dense else (8, 8)
        count = 64 * widths[0] + widths[0] + widths[0] * widths[1] + widths[1] + 10 * widths[1] + 10
        assert metrics["parameters"] == [count] * 2
        assert max(metrics["masked_difference"]) <= 1e-5


def test_steps_to_target_count_every_gradient_step(tiny):
    results, curves = tiny
    for method in TINY.methods:
        for seed, steps in enumerate(results[f"gd/{method}"]["steps_to_target"]):
            curve = curves[f"gd/{method}/train_loss"][seed]
            if steps is None:
                assert curve.min() > 0.3
            else:  # The run stands still from the step at which it got there.
                first = int(np.argmax(curve <= 0.3))
                assert (first - 1) * TINY.log_every < steps <= first * TINY.log_every
                assert (curve[first:] == curve[first]).all()
    curve, dense = curves["sgd/dense/train_loss"], results["sgd/dense"]
    reached = [
        list(row <= loss).index(True) for row, loss in zip(curve, dense["train_loss"], strict=True)
    ]
    steps = [curves["sgd/dense/step"][seed, at] for seed, at in enumerate(reached)]
    assert dense["steps_to_target"] == steps
    assert curves["sgd/dense/step"][0].tolist() == [15, 40]


def test_the_same_seed_gives_the_same_record(tiny):
    results, curves = ran(TINY)
    for name, metrics in tiny[0].items():
        for metric, values in metrics.items():
            assert metric.endswith("_seconds") or values == results[name][metric]
    for name, curve in tiny[1].items():
        if not name.endswith("_seconds"):
            np.testing.assert_array_equal(curve, curves[name])


def test_seeds_are_independent_of_how_many_there_are(tiny):
    one = replace(TINY, seed=1, seeds=1, methods=("dense",), regimes=TINY.regimes[:1])
    results, _ = ran(one)
    assert results["gd/dense"]["train_loss"][0] == tiny[0]["gd/dense"]["train_loss"][1]


def test_figures_and_words_come_from_the_record_alone(tiny):
    results, curves = tiny
    config = normalised(dataclasses.asdict(TINY))
    record = {"config": config, "results": summarise(results), "versions": {"data": "digits"}}
    figures = draw(record, curves)
    parts = ("", " in time", " conditioning", " nodes")
    assert set(figures) == {name + part for name in ("gd", "sgd") for part in parts}
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures.values())
    told = " ".join(measured(record))
    assert "digits" in told
    assert "15 steps" in told


def test_the_legend_of_many_methods_hides_no_curve(tiny):
    results, curves = tiny
    first = "gd/dense"
    names = [f"gd/{method}" for method in ("dense", *SCORED)]
    config = normalised(dataclasses.asdict(TINY))
    curves = {
        curve.replace(first, name): values
        for name in names
        for curve, values in curves.items()
        if curve.startswith(f"{first}/")
    }
    record = {"config": config, "results": summarise(dict.fromkeys(names, results[first]))}
    figure = in_time(record, curves, config["regimes"][0])
    figure.draw_without_rendering()
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert len(legend.get_texts()) == len(names)
    assert legend.get_window_extent().x0 > max(axes.bbox.x1 for axes in figure.axes)


def test_a_fraction_other_than_the_presets_own_is_named():
    assert key_of(QUICK, "kappa", 0.5) == "kappa"
    assert key_of(QUICK, "kappa", 0.25) == "kappa@0.25"
    assert key_of(QUICK, "dense", 0.25) == "dense"


def test_conditioning_is_measured_from_the_start_to_the_last_step():
    config = replace(QUICK, track=4, log_every=25)
    once = replace(SGD, period=0, freeze_at=0)
    assert tracked_steps(config, replace(once, max_steps=1600)) == [0, 100, 400, 1600]
    assert tracked_steps(config, replace(once, max_steps=40)) == [0, 25, 40]
    assert tracked_steps(config, replace(once, max_steps=60)) == [0, 25, 60]
    # Nodes are chosen until step 40; the later ones are steps that are logged.
    assert tracked_steps(config, replace(SGD, max_steps=1600)) == [40, 90, 390, 1600]
    assert tracked_steps(replace(config, track=0), SGD) == []


def test_conditioning_is_tracked_at_steps_that_are_logged(tiny):
    times = tracked_steps(TINY, TINY.regimes[1])
    assert times == [15, 40]  # Nodes are chosen until step 15.
    for method in TINY.methods:
        assert set(times) <= set(tiny[1][f"sgd/{method}/step"][0])
        for curve in training.TRACKED:
            assert tiny[1][f"sgd/{method}/{curve}"].shape == (2, len(times))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("dense", "magic")}, "no method 'magic'; there are dense, kappa"),
        ({"methods": ("dense", "dense")}, "once each"),
        ({"methods": ("kappa",)}, "must include dense"),
        ({"keep": (0.5, 0.0)}, r"keep must lie in \(0, 1\], got 0.0"),
        ({"keep": (1.5,)}, r"keep must lie in \(0, 1\], got 1.5"),
        ({"keep": (0.5, 0.5)}, "keep must name each fraction once"),
        ({"network": network("cnn"), "methods": ("dense", "fresh")}, "fresh is for multilayer"),
        ({"methods": ("dense", "fresh")}, "regime sgd chooses while it trains; no controls"),
        ({"regimes": (replace(GD, extension=0.5),)}, "extension must be at least 1, got 0.5"),
        ({"regimes": (replace(GD, extension=2.0),)}, "extension needs dense's final loss"),
        ({"regimes": (replace(SGD, centred=True),)}, "centred is for multilayer perceptrons"),
        ({"regimes": (replace(SGD, loss="next_token"),)}, "next_token does not fit a network mlp"),
        ({"probe_size": 33}, "probe_size must be at most the 32 training examples of regime gd"),
        ({"regimes": (replace(GD, batch_size=64),)}, "batch_size must be at most the 32"),
    ],
)
def test_bad_settings_are_named_before_any_work(change, message):
    with pytest.raises(ValueError, match=message):
        check(replace(QUICK, **change))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d._replace(images=np.full_like(d.images, np.nan)), "images must be finite"),
        (lambda d: d._replace(images=d.images[0, 0, 0]), "images must have shape"),
        (lambda d: d._replace(labels=d.labels + 10), r"labels must lie in \[0, 10\)"),
    ],
)
def test_bad_data_is_named_before_any_training(monkeypatch, spoil, message):
    load = data.load
    monkeypatch.setattr(data, "load", lambda name, *, split: spoil(load(name, split=split)))
    with pytest.raises(ValueError, match=message):
        running.run(QUICK, progress=Progress())


def test_more_examples_than_the_data_has_are_refused():
    regime = replace(GD, train_examples=10_000, batch_size=10_000)
    with pytest.raises(ValueError, match="at most the 1437 of digits, got 10000"):
        running.run(replace(QUICK, regimes=(regime,)), progress=Progress())


def test_a_decay_is_longer_for_networks_that_lose_nodes():
    plain = replace(SGD, max_steps=20, rates=(0.3,), period=0, freeze_at=0, extension=1.5)
    decaying = replace(plain, decay="cosine")
    check(replace(TINY, regimes=(decaying,)))
    methods = ("dense", "dense_small", "random")
    config = replace(TINY, methods=methods, seeds=1, regimes=(decaying,), log_every=10, track=0)
    _, curves = ran(config)
    steps = {name: curves[f"sgd/{name}/step"][0].tolist() for name in methods}
    whole = [0, 10, 20]
    assert steps == {"dense": whole, "dense_small": whole, "random": [*whole, 30]}
    losses = curves["sgd/random/train_loss"][0]
    assert losses[3] != losses[2]  # The rate is not zero yet where dense's is.
    assert regime_of(plain, "random") == plain
    assert regime_of(decaying, "random") == replace(decaying, max_steps=30, extension=1.0)


@pytest.mark.parametrize("stop", [2, 4])
def test_training_goes_on_from_its_checkpoints(tiny, tmp_path, monkeypatch, stop):
    del tiny  # What it compiled serves here.
    plain = replace(SGD, max_steps=40, rates=(0.3,), period=0, freeze_at=0)
    config = replace(TINY, methods=("dense",), seeds=1, regimes=(plain,), log_every=10)
    whole = ran(config)
    stretch, calls = training._stretch, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return stretch(*arguments)

    monkeypatch.setattr(training, "_stretch", dying)
    kept = Kept(tmp_path, "run", pytest.fail, save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        ran(config, kept)
    told = len(calls)
    results, curves = ran(config, Kept(tmp_path, "run", pytest.fail, save_every=0.0))
    assert len(calls) - told == 4 - (stop - 1)
    for key, values in whole[1].items():
        if not key.endswith("_seconds"):
            np.testing.assert_array_equal(curves[key], values, err_msg=key)
    for key, values in whole[0]["sgd/dense"].items():
        if not key.endswith("_seconds"):
            assert results["sgd/dense"][key] == values, key
