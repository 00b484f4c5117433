# SPDX-License-Identifier: Apache-2.0
"""What the figures of pl_pruning show, read off what they draw."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from experiments.folders import normalised

from experiments import figures as looks
from experiments.pl_pruning import drawing
from experiments.pl_pruning.config import METHODS, PRESETS
from experiments.pl_pruning.figures import measured, metrics, pooled
from experiments.pl_pruning.gaps import gap_figure, gaps_of, poolable
from experiments.pl_pruning.settings import network
from experiments.tables import known_metrics
from plprune.records import summarise

GD, SGD = PRESETS["quick"].regimes
ONCE = replace(SGD, max_steps=100, period=0, freeze_at=0)
PLAIN = replace(
    PRESETS["quick"], methods=("dense", "kappa", "random"), regimes=(ONCE,), keep=(0.5, 0.25),
    track=3, log_every=25,
)  # fmt: skip


def record_of(config, results):
    return {
        "config": normalised(dataclasses.asdict(config)), "results": summarise(results),
        "command": "python", "versions": {},
    }  # fmt: skip


def entry(**metrics):
    usual = {"test_accuracy": [0.5, 0.7], "kappa": [4.0, 6.0], "train_loss": [0.2, 0.3],
             "test_loss": [0.6, 0.9], "steps_to_target": [40, 60]}  # fmt: skip
    return usual | metrics


def curve_of(name, losses, steps, **others):
    """Of two seeds."""
    rows = np.asarray(losses, float) * np.ones((2, 1))
    found = {"train_loss": rows, "step": np.tile(steps, (2, 1))} | others
    return {f"{name}/{key}": np.asarray(values) for key, values in found.items()}


def regime_of(record):
    return record["config"]["regimes"][0]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}


@pytest.fixture(scope="module")
def fractions():
    """(record, its figure): kappa has an unresolved seed at a quarter of the nodes."""
    results = {
        "sgd/dense": entry(test_accuracy=[0.8, 0.9], kappa=[2.0, 4.0]),
        "sgd/kappa": entry(test_accuracy=[0.6, 0.8]),
        "sgd/kappa@0.25": entry(test_accuracy=[0.2, 0.4], kappa=[None, 3.0]),
        "sgd/random": entry(test_accuracy=[0.1, 0.3]),
        "sgd/random@0.25": entry(test_accuracy=[0.0, 0.1]),
    }
    record = record_of(PLAIN, results)
    return drawing.against_fraction(record, regime_of(record)).axes


def bars(axes):
    """Lower end, upper end and colour of every error bar, by its fraction."""
    return [
        (*sorted(segment[:, 1]), segment[0, 0], tuple(collection.get_color()[0]))
        for collection in axes.collections
        for segment in collection.get_segments()
    ]


def test_every_method_begins_at_the_whole_network(fractions):
    accuracy, _ = fractions
    drawn = lines(accuracy)
    assert set(drawn) == {"dense", "kappa", "random"}
    np.testing.assert_allclose(drawn["dense"].get_data(), [[1], [0.85]])
    for method, expected in {"kappa": [0.3, 0.7, 0.85], "random": [0.05, 0.2, 0.85]}.items():
        x, y = drawn[method].get_data()
        np.testing.assert_allclose(y, expected)
        np.testing.assert_allclose(x, [0.25, 0.5, 1], rtol=0.02)
        assert x[-1] == 1
    ticks = [label.get_text() for label in accuracy.get_xticklabels()]
    assert ticks == ["0.25", "0.5", "1"]


def test_bars_are_one_standard_error_and_the_whole_networks_is_drawn_once(fractions):
    accuracy, _ = fractions
    found = bars(accuracy)
    whole = [bar for bar in found if bar[2] == 1]
    np.testing.assert_allclose([bar[:2] for bar in whole], [[0.8, 0.9]])
    blue = [bar[:2] for bar in found if bar[3][2] > 0.6]
    np.testing.assert_allclose(sorted(blue), [[0.2, 0.4], [0.6, 0.8]])
    assert len(found) == 5


def test_points_without_a_number_are_named(fractions):
    accuracy, kappa = fractions
    assert kappa.get_title() == "not resolved: kappa@0.25 (1 of 2 seeds)"
    assert accuracy.get_title() == ""
    np.testing.assert_allclose(lines(kappa)["kappa"].get_ydata(), [5, 3])


def test_halved_networks_begin_at_the_halved_one_and_fresh_ones_nowhere():
    methods = ("dense", "dense_small", "random_small", "fresh")
    results = {f"sgd/{m}": entry(test_accuracy=[0.1, 0.1]) for m in methods}
    results["sgd/dense_small"] = entry(test_accuracy=[0.9, 0.9])
    record = record_of(replace(PLAIN, methods=methods), results)
    drawn = lines(drawing.against_fraction(record, regime_of(record)).axes[0])
    assert drawn["random_small"].get_ydata().tolist() == [0.1, 0.9]
    assert drawn["fresh"].get_ydata().tolist() == [0.1]


def conditioned(regime, shares, times, steps):
    """The axes of conditioning, whose curves hold their own times."""
    methods = ("dense", "kappa", "random")
    config = replace(PLAIN, methods=methods, regimes=(regime,), keep=(0.5,))
    curves = {}
    for method in methods:
        own = [[1.0]] * 2 if method == "dense" else shares
        tracked = dict.fromkeys(("kappa", "pl_constant", "lipschitz_constant"), [times] * 2)
        curves |= curve_of(f"sgd/{method}", [1.0] * len(steps), steps, kept_fraction=own, **tracked)
    record = record_of(config, {f"sgd/{method}": entry() for method in methods})
    return drawing.conditioning(record, curves, regime_of(record)).axes


def test_all_nodes_are_kept_until_they_are_chosen_and_the_share_to_the_last_step():
    kappa, *_, kept = conditioned(ONCE, [[0.5]] * 2, [1.0, 25.0, 100.0], [0, 50, 100])
    dense, one, other = (line.get_data() for line in kept.lines)
    np.testing.assert_array_equal(dense, [[0, 0, 100], [1, 1, 1]])
    for line in (one, other):
        np.testing.assert_array_equal(line, [[0, 0, 100], [1, 0.5, 0.5]])
    assert kept.get_xlabel() == kappa.get_xlabel() == "gradient steps"
    first, second = (line._dash_pattern for line in kept.lines[1:])
    assert first[0] != second[0]  # They take turns.
    np.testing.assert_array_equal(kappa.lines[0].get_data(), [[0, 25, 100], [1, 25, 100]])


def test_the_steps_in_which_nodes_are_chosen_are_shaded():
    regime = replace(ONCE, period=1, freeze_at=3)
    steps = [3, 28, 53, 78, 100]
    kappa, *_, kept = conditioned(regime, [[0.9, 0.7, 0.5]] * 2, [3.0, 28.0, 100.0], steps)
    np.testing.assert_array_equal(
        kept.lines[1].get_data(), [[0, 1, 2, 3, 100], [1, 0.9, 0.7, 0.5, 0.5]]
    )
    np.testing.assert_array_equal(kappa.lines[0].get_xdata(), [3, 28, 100])
    assert [patch.get_extents().width for patch in kept.patches] != []
    assert kappa.patches[0].get_xy()[0] == 0
    assert kappa.patches[0].get_width() == 3
    unshaded, *_ = conditioned(ONCE, [[0.5]] * 2, [1.0, 25.0, 100.0], [0, 100])
    assert not unshaded.patches


def test_steps_that_lie_close_together_share_a_label():
    regime = replace(ONCE, period=1, freeze_at=40, max_steps=200)
    kappa, *_ = conditioned(regime, [[0.5]] * 2, [40.0, 65.0, 200.0], [40, 65, 200])
    assert [label.get_text() for label in kappa.get_xticklabels()] == ["40", "", "200"]


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


def test_every_method_has_a_look_of_its_own_on_curves_and_as_points():
    names = {*METHODS, "kappa_cost", "kappa_hard_concrete"}
    assert names == looks.LOOKS.keys()  # None is of a method that does not exist.
    for part in ("linestyle", "marker"):
        styles = [looks.method_style(name) for name in names]
        assert len({(look["color"], str(look[part])) for look in styles}) == len(names)


@pytest.mark.parametrize(("all_outputs", "kernel"), [(True, "all outputs"), (False, "random")])
def test_the_condition_number_is_said_to_be_that_of_the_kernel_that_was_measured(
    all_outputs, kernel
):
    config = replace(PLAIN, all_outputs=all_outputs, held_out=48)
    record = record_of(config, {"sgd/dense": entry(pl_constant=[1.0, 2.0])})
    record["versions"] = {"data": "digits"}
    known = known_metrics(record, metrics(record))
    for name in ("kappa", "pl_constant"):
        assert kernel in known[name].meaning
    assert "48 test examples" in known["kappa"].meaning
    assert "all outputs" not in known["kappa"].meaning or all_outputs
    assert any(
        f"tangent kernel of {'all' if all_outputs else 'one'}" in p for p in measured(record)
    )
