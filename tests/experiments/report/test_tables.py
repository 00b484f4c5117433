# SPDX-License-Identifier: Apache-2.0
"""Numbers as text: rounded to their error, with units, and saying what a null means."""

# ruff: noqa: RUF001 - the signs of multiplication and of a range are meant.

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.tables import (
    Cell,
    Metric,
    Table,
    known_metrics,
    metric_cell,
    metric_tables,
    number,
)
from plprune.records import summarise, summary

METRICS = {
    "kappa": Metric("condition number", "", better="lower"),
    "pl_constant": Metric("PL constant", "", better="higher"),
    "test_accuracy": Metric("test accuracy", "", "%", better="higher"),
    "train_loss": Metric("training loss", "", better="lower"),
    "steps_to_target": Metric("steps to target", "", missing="not reached"),
    "gating_seconds": Metric("gating time", "", "s", better="lower"),
    "step_seconds": Metric("step time", "", "s", better="lower"),
}


@pytest.mark.parametrize(
    ("mean", "stderr", "text"),
    [
        (None, None, "–"),
        (0.0, None, "0"),
        (26122.0, None, "26,122"),
        (0.123456, None, "0.1235"),
        (100 * 0.29, None, "29"),  # 28.999999999999996.
        (0.5, 0.0, "0.5000"),
        (0.5, 1e-17, "0.5000"),  # Rounding of equal values is no error.
        (12.3456, 0.234, "12.35 ± 0.23"),
        (3472.6, 46.2, "3,473 ± 46"),
        (6072.0, 405.0, "6,072 ± 405"),
        (0.0, 0.05, "0.000 ± 0.050"),
        (-1.5, 0.1, "-1.50 ± 0.10"),
        (3.14e-5, 2.2e-6, "(3.14 ± 0.22) × 10⁻⁵"),
        (4.2e7, 3e5, "(4.200 ± 0.030) × 10⁷"),
        (1.5e-8, None, "1.500 × 10⁻⁸"),
        (2.5, 1e-9, "2.500 ± 1.0 × 10⁻⁹"),
    ],
)
def test_numbers_are_rounded_to_two_digits_of_their_error(mean, stderr, text):
    assert number(mean, stderr) == text


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.floats(min_value=0, allow_infinity=False),
)
def test_every_number_has_a_short_text(mean, stderr):
    assert 0 < len(number(mean, stderr)) < 45


def test_a_fraction_is_shown_as_per_cent_and_sorts_by_its_own_value():
    cell = metric_cell(summary([0.95, 0.97]), METRICS["test_accuracy"])
    assert cell.text == "96.0 ± 1.0"
    assert cell.value == pytest.approx(0.96)


def test_a_null_says_what_is_missing_and_on_how_many_seeds():
    steps = METRICS["steps_to_target"]
    assert metric_cell(summary([10, None, 12]), steps) == Cell("not reached on 1 of 3 seeds")
    assert metric_cell(summary([None]), steps) == Cell("not reached")
    assert metric_cell(summary([None]), METRICS["kappa"]) == Cell("not resolved")
    assert metric_cell(None, steps) == Cell("")


def record(results):
    return {"results": summarise(results)}


def test_one_table_per_regime_with_empty_cells_where_a_metric_is_missing():
    found = record({
        "gd/dense": {"kappa": [2.0]},
        "gd/kappa@0.25": {"kappa": [1.0], "gating_seconds": [5]},
        "sgd/dense": {"train_loss": [0.5]},
    })  # fmt: skip
    gd, sgd = metric_tables(found, known_metrics(found, METRICS))
    assert (gd.title, sgd.title) == ("gd", "sgd")
    assert gd.columns == ("method", "condition number ↓", "gating time (s) ↓")
    assert [[cell.text for cell in row] for row in gd.rows] == [
        ["dense", "2", ""], ["kappa@0.25", "1", "5"],
    ]  # fmt: skip
    assert sgd.columns == ("method", "training loss ↓")


def test_columns_without_a_number_are_to_be_read():
    table = Table("", ("a", "b", "c"), ((Cell("x"), Cell("y"), Cell("1", 1.0)),) * 2)
    assert table.are_words == [True, True, False]
    assert Table("", ("a", "b"), ()).are_words == [True, True]


def test_methods_that_share_no_metric_stand_in_tables_of_their_own():
    found = record({
        "a": {"kappa": [1.0]}, "b": {"flops": [2]}, "c": {"flops": [3], "rate": [1.0]},
        "d": {"kappa": [1.0], "parameters": [4]}, "e": {"rate": [2.0]}, "f": {"stray": [1.0]},
    })  # fmt: skip
    tables = metric_tables(found, known_metrics(found, METRICS))
    assert [[row[0].text for row in table.rows] for table in tables] == [
        ["a", "d"], ["b", "c", "e"], ["f"],
    ]  # fmt: skip
    late = record({"a": {"kappa": [1.0]}, "b": {"flops": [2]}, "c": {"kappa": [1], "flops": [2]}})
    (table,) = metric_tables(late, known_metrics(late, METRICS))
    assert [row[0].text for row in table.rows] == ["a", "b", "c"]


def test_small_numbers_of_a_column_share_one_power_of_ten():
    found = record({"a": {"pl_constant": [3e-4, 3.2e-4]}, "b": {"pl_constant": [5e-4, 5e-4]}})
    (table,) = metric_tables(found, known_metrics(found, METRICS))
    assert table.columns[1] == "PL constant (in 10⁻⁴) ↑"
    assert [row[1].text for row in table.rows] == ["3.10 ± 0.10", "5"]
    assert table.rows[1][1].value == 5e-4


@pytest.mark.parametrize(
    ("seconds", "heading", "text"),
    [(12.0, "step time (s) ↓", "12"), (0.25, "step time (ms) ↓", "250"),
     (4e-5, "step time (μs) ↓", "40"), (0.0, "step time (s) ↓", "0")],
)  # fmt: skip
def test_short_times_are_shown_in_smaller_units(seconds, heading, text):
    found = record({"a": {"step_seconds": [seconds]}, "b": {"step_seconds": [0.0]}})
    (table,) = metric_tables(found, known_metrics(found, METRICS))
    assert table.columns[1] == heading
    assert [row[1].text for row in table.rows] == [text, "0"]


def test_numbers_far_apart_keep_their_own_powers():
    found = record({"a": {"pl_constant": [3e-9]}, "b": {"pl_constant": [0.5]}})
    (table,) = metric_tables(found, known_metrics(found, METRICS))
    assert [row[1].text for row in table.rows] == ["3.000 × 10⁻⁹", "0.5000"]


def test_unknown_metrics_speak_for_themselves_and_known_ones_may_be_replaced():
    found = record({"a": {"step_width": [1.0], "wait_seconds": [1.0], "kappa": [1.0]}})
    known = known_metrics(found, {"kappa": Metric("spread", "Ours.")})
    assert [metric.label for metric in known.values()] == ["step width", "wait", "spread"]
    assert known["wait_seconds"].unit == "s"
