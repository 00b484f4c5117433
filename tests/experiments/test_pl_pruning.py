"""The pl_pruning experiment at toy size: what its record promises, and what it refuses."""

from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest

from experiments.pl_pruning import run as running
from experiments.pl_pruning import subject
from experiments.pl_pruning.config import METHODS, PRESETS, check
from experiments.pl_pruning.figures import draw, measured
from experiments.progress import Silent
from plprune.records import summarise

pytestmark = pytest.mark.usefixtures("models_broadcast")

QUICK = PRESETS["quick"]
GD, SGD = QUICK.regimes
TINY = replace(
    QUICK,
    widths=(16, 16),
    methods=("dense", "kappa"),
    regimes=(
        replace(GD, max_steps=75, target=0.3, initial_updates=2),
        replace(SGD, max_steps=40, rates=(0.03, 0.3), period=5, freeze_at=15, initial_updates=2),
    ),
    seeds=2,
)


@pytest.fixture(scope="module")
def tiny():
    import jax

    with jax.numpy_rank_promotion("allow"):
        return running.run(TINY, progress=Silent())


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
    assert results["sgd/dense"]["steps_to_target"][0] is not None


def test_the_same_seed_gives_the_same_record(tiny):
    results, curves = running.run(TINY, progress=Silent())
    for name, metrics in tiny[0].items():
        for metric, values in metrics.items():
            assert metric.endswith("_seconds") or values == results[name][metric]
    for name, curve in tiny[1].items():
        np.testing.assert_array_equal(curve, curves[name])


def test_seeds_are_independent_of_how_many_there_are(tiny):
    one = replace(TINY, seed=1, seeds=1, methods=("dense",), regimes=TINY.regimes[:1])
    results, _ = running.run(one, progress=Silent())
    assert results["gd/dense"]["train_loss"][0] == tiny[0]["gd/dense"]["train_loss"][1]


def test_figures_and_words_come_from_the_record_alone(tiny):
    import dataclasses

    results, curves = tiny
    config = dataclasses.asdict(TINY)
    record = {"config": config, "results": summarise(results), "versions": {"data": "digits"}}
    figures = draw(record, curves)
    assert set(figures) == {"gd", "sgd"}
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures.values())
    told = " ".join(measured(record))
    assert "digits" in told
    assert "15 steps" in told


@pytest.mark.parametrize("method", [m for m in METHODS if m not in TINY.methods])
def test_every_other_method_runs(method):
    config = replace(TINY, methods=(method,), seeds=1, regimes=TINY.regimes[:1])
    results, _ = running.run(config, progress=Silent())
    assert results[f"gd/{method}"]["kept_nodes"] == [0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("dense", "magic")}, "no method 'magic'; there are dense, kappa"),
        ({"methods": ("dense", "dense")}, "once each"),
        ({"methods": ("kappa",)}, "must include dense"),
        ({"keep": 0.0}, r"keep must lie in \(0, 1\], got 0.0"),
        ({"keep": 1.5}, r"keep must lie in \(0, 1\], got 1.5"),
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
    load = subject.load
    monkeypatch.setattr(subject, "load", lambda name, *, split: spoil(load(name, split=split)))
    with pytest.raises(ValueError, match=message):
        running.run(QUICK, progress=Silent())


def test_more_examples_than_the_data_has_are_refused():
    regime = replace(GD, train_examples=10_000, batch_size=10_000)
    with pytest.raises(ValueError, match="at most the 1437 of digits, got 10000"):
        running.run(replace(QUICK, regimes=(regime,)), progress=Silent())
