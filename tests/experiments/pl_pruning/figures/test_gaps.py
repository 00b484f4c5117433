# SPDX-License-Identifier: Apache-2.0
"""What the figure of the two gaps shows and of which runs, and correlations of nothing."""

from dataclasses import replace

import numpy as np
from pruning_records import ONCE, PLAIN, curve_of, entry, record_of, regime_of

from experiments.pl_pruning.config import METHODS
from experiments.pl_pruning.figures import pooled
from experiments.pl_pruning.figures.gaps import correlation, gap_figure, gaps_of, poolable
from experiments.pl_pruning.settings import network
from plprune.records import summarise


def gaps_record(config=PLAIN, scale=1.0, seed=0):
    """Losses after 50 of 100 steps, and of kappa after 120; a kappa and a loss without numbers."""
    results = {
        "sgd/dense": entry(kappa=[10.0 * scale, 20.0 * scale]),
        "sgd/kappa": entry(kappa=[None, 5.0 * scale]),
        "sgd/random": entry(kappa=[7.0 * scale, 8.0 * scale], train_loss=[0.1, None]),
    }
    curves = (
        curve_of("sgd/dense", [1.0, 0.5, 0.25 * scale], [0, 50, 98])
        | curve_of("sgd/kappa", [1.0, 0.5, 0.25, 0.125], [0, 50, 105, 140])
        | curve_of("sgd/random", [1.0, 0.75, 0.5], [0, 50, 100])
    )
    return record_of(replace(config, seed=seed), results), curves


def test_the_convergence_gap_is_taken_at_denses_last_step():
    record, curves = gaps_record()
    found = gaps_of([(record, curves)], regime_of(record))
    assert found.methods == ["sgd/dense", "sgd/dense", "sgd/kappa", "sgd/random"]
    # The lowest loss is kappa's at step 140, of the seed without a kappa too.
    np.testing.assert_allclose(found.convergence, [0.125, 0.125, 0.125, 0.375])
    np.testing.assert_allclose(found.generalisation, [0.4, 0.6, 0.6, 0.5])
    assert found.kappa.tolist() == [10, 20, 5, 7]
    assert found.left_out == {"condition number not resolved": 1, "diverged": 1}


def test_where_training_stops_at_a_target_the_gap_is_the_steps_to_it():
    config = replace(PLAIN, regimes=(replace(ONCE, target=0.1),))
    record, curves = gaps_record(config)
    record["results"]["sgd/dense"]["steps_to_target"]["values"] = [700, None]
    found = gaps_of([(record, curves)], regime_of(record))
    assert found.convergence.tolist() == [700, 60, 40]
    assert found.left_out["target not reached"] == 1


def test_records_of_networks_of_other_sizes_are_pooled_and_those_of_other_problems_are_not():
    wide = replace(PLAIN, network=network("mlp", hidden=(128, 32), activation="tanh"))
    narrow, broad = gaps_record(), gaps_record(wide, scale=0.2)
    other = gaps_record(replace(PLAIN, held_out=8))
    ((regime, alike),) = poolable([narrow, other, broad, gaps_record(seed=0)])
    assert len(alike) == 3
    found = gaps_of(alike, regime)
    assert len(found.kappa) == 8  # The fourth record repeats the first.
    assert len(set(found.kinds)) == 6
    # The wide dense network has a loss of .05, the lowest of both.
    np.testing.assert_allclose(found.convergence[:4], [0.2, 0.2, 0.2, 0.45])
    np.testing.assert_allclose(found.convergence[4:], [0, 0, 0.2, 0.45])
    assert found.left_out == {"condition number not resolved": 2, "diverged": 2}


def test_the_gap_figure_shows_every_run_its_network_and_how_many_are_left_out():
    wide = replace(PLAIN, network=network("mlp", hidden=(128, 32), activation="tanh"))
    runs = [gaps_record(wide, scale=0.2), gaps_record()]
    (figure,) = pooled(runs).values()
    convergence, generalisation = figure.axes
    for axes, attribute in ((convergence, "convergence"), (generalisation, "generalisation")):
        found = gaps_of(runs, regime_of(runs[0][0]))
        shown = sorted((x, y) for line in axes.lines for x, y in zip(*line.get_data(), strict=True))
        expected = zip(found.kappa, getattr(found, attribute), strict=True)
        np.testing.assert_allclose(shown, sorted(expected))
        assert "Spearman" in axes.get_title()
    assert "training loss after 100 steps" in convergence.get_ylabel()
    named = [text.get_text() for text in generalisation.get_legend().get_texts()]
    assert named == ["dense", "kappa", "random", "hidden 32, 32", "hidden 128, 32"]
    title = figure.get_suptitle()
    for part in ("digits, regime sgd, 2 records", "8 runs", "2 (condition number not resolved)"):
        assert part in title
    sizes = {line.get_markersize() for line in convergence.lines if len(line.get_xdata())}
    assert len(sizes) == 2


def test_a_long_legend_leaves_the_axes_their_height():
    record, curves = gaps_record()
    names = [f"sgd/{method}" for method in METHODS]
    results = summarise({name: entry(kappa=[1.0 + i, 2.0]) for i, name in enumerate(names)})
    for i, name in enumerate(names):
        curves |= curve_of(name, [1.0, 1 / (i + 1)], [0, 100])
    figure = gap_figure([(record | {"results": results}, curves)], regime_of(record), "")
    figure.draw_without_rendering()
    legend = figure.axes[1].get_legend().get_window_extent()
    for axes in figure.axes:
        assert axes.bbox.height > 0.8 * legend.height > 400


def test_too_few_runs_make_no_gap_figure():
    record, curves = gaps_record()
    assert gap_figure([(record, curves)], regime_of(record), "") is None
    assert pooled([(record, curves)]) == {}


def test_correlations_say_where_there_is_none():
    methods = [f"gd/{name}" for name in "abcdef" for _ in range(3)]
    rising = np.arange(18.0)
    found = correlation(rising, rising**3, methods)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert "no correlation" not in found.text
    draws = np.random.default_rng(1)
    null = correlation(draws.normal(size=18), draws.normal(size=18), methods)
    assert null.low <= 0 <= null.high
    assert null.text.endswith("no correlation seen")
