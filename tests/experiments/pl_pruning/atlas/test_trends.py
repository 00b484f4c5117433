# SPDX-License-Identifier: Apache-2.0
"""Ratios with their errors, what is resolved, and how it is said and drawn."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments.pl_pruning.atlas import figures, trends, words
from plprune.records import summarise

CELL = "digits, square, adam, depth 4, none, full batch, target 0.001"
GD = "digits, square, gd, depth 2, none, batch 16, target 0.01, warm-up 5"
NOISE = np.asarray([0.9, 1.0, 1.1, 1.05, 0.97])
SHIFT = np.asarray([1.02, 0.99, 1.0, 0.98, 1.03])


def entries(steps, *, cost=2.0, interior=1.0, gating=7.0):
    steps = [None if np.isnan(s) else float(s) for s in steps]
    five = [0.9, 0.91, 0.92, 0.93, 0.94]
    return {
        "test_accuracy": five, "accuracy_at_flops": five,
        "steps_to_target": steps,
        "flops_to_target": [None if s is None else cost * s + gating for s in steps],
        "seconds_to_target": [None if s is None else s / 10 + 1 for s in steps],
        "step_flops": [cost] * 5, "step_seconds": [0.1] * 5, "interior": [interior] * 5,
        "gating_seconds": [1.0] * 5, "rate": [0.1] * 5, "equal_steps": [10.0] * 5,
    }  # fmt: skip


def record_of(**methods):
    results = {f"{cell}/{m}": e for cell in (CELL, GD) for m, e in methods.items()}
    config = {"max_steps": 500, "gd_steps": 900, "search_seed": 1000, "search_seeds": 4,
              "keep": 0.5, "width": 8, "methods": list(methods)}  # fmt: skip
    return {"config": config, "results": summarise(results)}


RECORD = record_of(
    dense=entries(300 * NOISE, cost=6.0), kappa=entries(100 * NOISE),
    random=entries(150 * NOISE * SHIFT), magnitude=entries(130 * NOISE * SHIFT),
    trace=entries(100 * NOISE * SHIFT),
)  # fmt: skip
METHODS = trends.by_cell(RECORD["results"])[CELL]


def test_ratios_are_paired_geometric_means():
    found = trends.best_other(METHODS, 500)
    assert found.rival == "magnitude"
    logs = np.log(1.3 * SHIFT)
    np.testing.assert_allclose(found.value, np.exp(logs.mean()))
    grid = np.log(2) / 8 * (2 / 12) ** 0.5  # Two rates, uniform within a step of the grid.
    error = np.hypot(logs.std(ddof=1) / 5**0.5, grid)
    np.testing.assert_allclose(found.error, found.value * error)
    interval = ttest_rel(np.log(130 * NOISE * SHIFT), np.log(100 * NOISE)).confidence_interval()
    reach = np.ptp(interval) / 2 * error / (logs.std(ddof=1) / 5**0.5)
    around = np.log([found.low, found.high]) - logs.mean()
    np.testing.assert_allclose(around, [-reach, reach], rtol=1e-6)
    assert (found.verdict, found.text) == ("faster", "1.30 \u00b1 0.05")


def test_costs_other_than_steps_count_the_gating():
    dense = trends.ratio(METHODS, 500, "dense", trends.FLOPS)
    exact = np.mean(np.log((6 * 300 * NOISE + 7) / (2 * 100 * NOISE + 7)))
    np.testing.assert_allclose(dense.value, np.exp(exact))
    assert trends.ratio(METHODS, 500, "snip") is None


def test_what_the_seeds_do_not_resolve_is_in_brackets():
    found = trends.ratio(METHODS, 500, "trace")
    assert found.verdict == "not resolved"
    assert found.text == "(1.00 \u00b1 0.04)"


@pytest.mark.parametrize(
    ("random", "kappa", "text"),
    [
        ([150, np.nan, 150, 150, 150], [100] * 5, "(\u22651.91)"),
        ([99, np.nan, 90, 99, 90], [100] * 5, "(\u22651.32)"),
        ([np.nan] * 5, [100] * 5, "\u22655.00"),
        ([100] * 5, [np.nan] * 5, "\u22640.20"),
        ([np.nan] * 5, [np.nan] * 5, "not reached"),
    ],
)
def test_runs_that_miss_the_target_make_a_bound(random, kappa, text):
    methods = trends.by_cell(record_of(kappa=entries(kappa), random=entries(random))["results"])
    found = trends.best_other(methods[CELL], 500)
    assert found.text == text


def test_kappas_half_is_faster_only_where_every_other_is_slower():
    diverged = entries([90, 90, 90, 90, np.nan])
    cases = {
        "magnitude": {"random": entries(150 * NOISE), "magnitude": diverged},
        "random": {"random": entries(80 * NOISE), "magnitude": diverged},
    }
    for rival, others in cases.items():
        record = record_of(kappa=entries(100 * NOISE), **others)
        found = trends.best_other(trends.by_cell(record["results"])[CELL], 500)
        assert found.rival == rival
        assert found.verdict == ("slower" if rival == "random" else "not resolved")


def test_a_bound_on_the_wrong_side_resolves_nothing():
    found = trends.Ratio("random", 1.5, 0.1, 1.2, 1.8, "\u2264")
    assert found.verdict == "not resolved"
    assert trends.Ratio("random", 0.5, 0.1, 0.4, 0.6, "\u2264").verdict == "slower"


def test_a_rate_at_the_end_of_its_grid_gives_no_number():
    methods = record_of(kappa=entries(NOISE, interior=0.0), random=entries(NOISE))
    found = trends.best_other(trends.by_cell(methods["results"])[CELL], 500)
    assert (found.text, found.verdict) == ("no rate", "not resolved")


def test_tables_and_figures_show_every_cell():
    verdicts, *rest = words.tables(RECORD)
    assert [row[0].text for row in verdicts.rows] == [CELL, GD]
    assert verdicts.rows[0][1].text == "magnitude"
    assert len(rest) == 2
    drawn = figures.draw(RECORD, {})
    assert drawn.keys() == words.findings(RECORD).keys()
    axes = drawn["other halves"].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["GD at 1/L", "Adam"]
    assert len(axes.patches) == 2
    assert "of 2 cells 2 faster, 0 slower, 0 not resolved" in words.findings(RECORD)["dense"]


def test_parts_that_were_run_alike_are_drawn_together():
    other = RECORD | {"results": {k: v for k, v in RECORD["results"].items() if k.startswith(GD)}}
    one = RECORD | {"config": RECORD["config"] | {"figure": "square_4"}}
    both = figures.pooled([(one, {}), (other, {})])
    assert len(both["dense"].axes[0].patches) == 2
    assert figures.pooled([]) == {}
