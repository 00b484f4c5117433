# SPDX-License-Identifier: Apache-2.0
"""The map that ships is the one that the page speaks of."""

from pathlib import Path

import numpy as np

from experiments.pl_pruning.atlas import trends
from experiments.pl_pruning.atlas.cells import PARTS, cell_named
from plprune.records import read_record

DOCS = Path(__file__).parents[4] / "docs"
RECORDS = sorted((DOCS / "records" / "pl_pruning" / "atlas").glob("*/record.json"))
PAGE = (DOCS / "papers" / "pl_pruning.md").read_text(encoding="utf-8")


def written(text):
    """As the page writes numbers below one."""
    return text.replace("0.", ".").replace("\u2265", "\u2265 ")


def test_the_page_has_the_ratios_of_the_record():
    assert {path.parent.name for path in RECORDS} <= {*PARTS}
    record = read_record(DOCS / "records" / "pl_pruning" / "atlas" / "square_4")[0]
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for name, methods in trends.by_cell(record["results"]).items():
        most = trends.most_steps(record["config"], name)
        for start, found in (
            ("| $R$ against the best other half |", trends.best_other(methods, most)),
            ("| $R$ against random |", trends.ratio(methods, most, "random")),
            ("| FLOPs, dense over", trends.ratio(methods, most, "dense", trends.FLOPS)),
        ):
            (row,) = [line for line in rows if line.startswith(start)]
            assert f" {written(found.text)} " in row, (name, start)


def test_rates_of_the_record_are_interior_and_chosen_on_other_seeds():
    for path in RECORDS:
        record = read_record(path.parent)[0]
        first = record["config"]["search_seed"]
        searched = range(first, first + record["config"]["search_seeds"])
        assert not {*record["seeds"]} & {*searched}
        assert len(record["seeds"]) >= 5
        for key, entries in record["results"].items():
            assert cell_named(key.rpartition("/")[0])
            np.testing.assert_array_equal(entries["interior"]["values"], 1.0)
