# SPDX-License-Identifier: Apache-2.0
"""The matrix sensing experiments in miniature: claims, records, figures, refused settings."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import miniature
import numpy as np
import pytest

from experiments.matrix_sensing import config as settings
from experiments.matrix_sensing import figures, words
from experiments.matrix_sensing.run import versions
from experiments.matrix_sensing.words import setting

pytestmark = pytest.mark.usefixtures("models_broadcast")
QUICK = settings.PRESETS["quick"]
TINY = dataclasses.replace(
    QUICK, d=12, k=12, grid_d=10, grid_n=1500, sizes=(400, 1600), cells=4, starts=(1e-3, 0.5),
    widths=(12, 12), network_steps=300, network_lam=0.1, examples=256, fractions=3,
)  # fmt: skip


drawn = partial(miniature.drawn, TINY, figures, words)


def test_columns_keep_r_with_the_regulariser_and_are_destroyed_without(figure_run):
    results, curves = figure_run("columns")
    on, off = results["regularised"], results["unregularised"]
    assert on["kept_columns"] == [2.0, 2.0]
    np.testing.assert_allclose(on["large_column_fraction"], 2 / 12, rtol=1e-6)
    assert max(on["squared_error_finetuned"]) < 1e-10
    assert max(off["squared_error"]) < 1e-4
    assert min(off["squared_error_pruned"]) > 0.1
    assert curves["regularised/column_norms"].shape == (2, 12)
    assert drawn((results, curves)).keys() == {"columns"}


def test_start_reports_every_size_of_start(figure_run):
    results, curves = figure_run("start")
    assert results.keys() == {"start/0.001", "start/0.5"}
    assert all(0 < v <= 1 for m in results.values() for v in m["large_column_fraction"])
    assert drawn((results, curves)).keys() == {"start"}


def test_finetuning_is_linear_at_the_predicted_rate(figure_run):
    results, curves = figure_run("finetuning")
    for found in results.values():
        assert min(found["finetune_r2"]) > 0.99
        assert min(found["finetune_decades"]) > 6
        np.testing.assert_allclose(
            found["finetune_slope"], found["finetune_predicted_slope"], rtol=0.3
        )
    exact = results["regularised"]
    np.testing.assert_allclose(exact["finetune_slope"], 2 * np.log(1 - 8 * 0.05), rtol=1e-3)
    assert drawn((results, curves)).keys() == {"finetuning"}


def test_error_falls_with_the_number_of_measurements(figure_run):
    results, curves = figure_run("error")
    few, many = (np.mean(results[f"n/{n}"]["squared_error_finetuned"]) for n in (400, 1600))
    assert many < few / 2
    np.testing.assert_allclose(results["n/1600"]["predicted_error"], 0.25 * 20 / 1600)
    assert drawn((results, curves)).keys() == {"error"}


def test_phase_collapses_exactly_beyond_the_escape_bound(figure_run):
    results, curves = figure_run("phase")
    assert results["phase"]["collapsed_beyond_bound"] == [1.0, 1.0]
    assert results["phase"]["collapsed_within_bound"] == [0.0, 0.0]
    assert curves["phase/kept_columns_grid"].shape == (2, 16)
    assert drawn((results, curves)).keys() == {"phase"}


def test_quadratic_network_is_pruned_to_r_units(figure_run):
    results, curves = figure_run("quadratic")
    on, off = results["quadratic/regularised"], results["quadratic/unregularised"]
    assert on["kept_columns"] == [2.0, 2.0]
    assert min(off["risk_pruned"]) > 10 * max(on["risk_pruned"])
    assert drawn((results, curves)).keys() == {"quadratic"}


def test_network_with_group_lasso_loses_nothing_by_greedy_pruning(figure_run):
    results, curves = figure_run("network")
    on, off = results["digits/group_lasso"], results["digits/plain"]
    assert on["kept_nodes"] == off["kept_nodes"]
    assert max(on["nodes_above_threshold"]) < 1 == min(off["nodes_above_threshold"])
    np.testing.assert_allclose(on["test_accuracy_pruned"], on["test_accuracy"], atol=0.02)
    assert np.mean(off["test_accuracy_pruned"]) < np.mean(off["test_accuracy"]) - 0.05
    assert (curves["digits/plain/accuracy_pruned"][:, -1] == off["test_accuracy"]).all()
    assert drawn((results, curves)).keys() == {"network"}


def test_lossy_copies_are_named_in_the_record(monkeypatch):
    def load(name, **_):
        if name == "absent":
            raise FileNotFoundError(name)
        return SimpleNamespace(title=name.title(), notes="re-encoded" if name == "copy" else "")

    monkeypatch.setattr("plprune.data.load", load)
    config = dataclasses.replace(TINY, datasets=("digits", "copy", "absent"))
    assert versions(config) == {"Copy": "re-encoded"}


def test_figures_name_their_sizes():
    config = dataclasses.asdict(settings.PRESETS["small"])
    assert (
        setting(config)
        == "d = k = 20, r = 2, n = 1,500, \u03c3 = 0.5, \u03bb = 0.045, \u03b2 = 0.001"
    )
    config |= {"n": 0, "k": 30, "grid_sigma": 0.1}
    assert setting(config, strength=False) == "d = 20, k = 30, r = 2, population loss"
    assert (
        setting(config, grid=True, strength=False) == "d = k = 20, r = 2, n = 1,500, \u03c3 = 0.1"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 21}, "r must lie in"),
        ({"n": 30}, "n must be at least 39"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"lam": 0.07}, "lambda must stay below 0.0632"),
        ({"form": "l2"}, "form must be rational or convex"),
        ({"sigma": 0.1}, "sigma needs measurements"),
        ({"operator": "wavelet"}, "operator must be one of"),
        ({"start": 0.0}, r"start must lie in \(0, 1\]"),
        ({"n": 401, "operator": "fourier"}, r"n must be at most d\^2 = 400"),
        ({"d": 500, "k": 500, "n": 20_000}, "would store 18.6 GiB"),
    ],
)
def test_bad_settings_are_named_before_the_run(changes, words):
    with pytest.raises(ValueError, match=words):
        settings.check(dataclasses.replace(QUICK, **changes))
