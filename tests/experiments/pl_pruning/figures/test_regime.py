# SPDX-License-Identifier: Apache-2.0
"""What the figures of one regime show, read off what they draw."""

from dataclasses import replace

import numpy as np
import pytest
from pruning_records import ONCE, PLAIN, curve_of, entry, record_of, regime_of

from experiments.pl_pruning.figures import regime as drawing
from experiments.report.style import new_figure


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


def test_points_show_seeds_and_leave_out_nulls():
    _, axes = new_figure()
    methods = {
        "dense": {"kappa": {"mean": 2.0, "stderr": 1.0, "values": [1.0, 3.0]}},
        "kappa": {"kappa": {"mean": None, "stderr": None, "values": [None, 3.0]}},
        "random": {},
    }
    drawing._draw_points(axes[0, 0], methods, "kappa", "condition number")
    assert [t.get_text() for t in axes[0, 0].get_yticklabels()] == ["dense", "kappa"]
    assert [note.get_text() for note in axes[0, 0].texts] == ["not resolved: 1 of 2"]
