# SPDX-License-Identifier: Apache-2.0
"""The numbers behind a figure: those that were drawn, under the names they were drawn with."""

import numpy as np

from experiments import figures
from experiments.figure_data import drawn_rows


def test_lines_and_bands_are_given_with_their_labels():
    figure, axes = figures.new_figure(1, 2)
    figures.draw_curve(axes[0, 0], [0, 1], [[1.0, 2.0], [3.0, 4.0]], color="k", label="mean")
    axes[0, 0].set_title("loss")
    axes[0, 1].axhline(0.5)
    axes[0, 1].set_ylabel("bound")
    rows = list(drawn_rows(figure))
    assert ("1: loss", "mean", "0", "2", "") in rows
    edges = {row[2:4] for row in rows if row[1] == "edge of band 1"}
    assert {("0", "1"), ("0", "3"), ("1", "2"), ("1", "4")} <= edges  # One standard error is 1.
    assert [row for row in rows if row[0] == "2: bound"] == 2 * [
        ("2: bound", "line 1", "", "0.5", "")
    ]


def test_points_are_named_after_their_row_and_bars_end_at_one_standard_error():
    figure, axes = figures.new_figure()
    entry = {"values": [1.0, 3.0], "mean": 2.0, "stderr": 1.0}
    figures.draw_points(axes[0, 0], {"gd/a": {"m": entry}}, "m", "metric")
    rows = {row[1:4] for row in drawn_rows(figure)}
    assert {("line 1", "1", "a"), ("line 1", "3", "a")} <= rows
    assert {row[1:] for row in rows if row[0].startswith("end of bar")} == {("1", "a"), ("3", "a")}


def test_coloured_cells_are_given_at_their_centres_and_nothing_is_said_of_no_number():
    figure, axes = figures.new_figure()
    mesh = axes[0, 0].pcolormesh([0, 2, 4], [0, 1], np.array([[5.0, np.nan]]))
    figure.colorbar(mesh)
    assert list(drawn_rows(figure)) == [
        ("1", "cell centre", "1", "0.5", "5"), ("1", "cell centre", "3", "0.5", ""),
    ]  # fmt: skip


def test_a_curve_without_any_number_has_no_band():
    figure, axes = figures.new_figure()
    figures.draw_curve(axes[0, 0], [0, 1], np.full((2, 2), np.nan), label="gone")
    assert list(drawn_rows(figure)) == [("1", "gone", "0", "", ""), ("1", "gone", "1", "", "")]
