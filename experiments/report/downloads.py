# SPDX-License-Identifier: Apache-2.0
"""A record's numbers as links of its page, which download them as tables."""

import base64
import csv
import io
from collections.abc import Iterable, Mapping

import numpy as np

from plprune.records import Record

MOST_BYTES = 400_000  # Longer ones stay in metrics.npz: the page is for a phone too.


def results_csv(record: Record) -> str:
    """A row per method and metric: mean, standard error, and the value of every seed."""
    rows = [["method", "metric", "mean", "stderr", *(f"seed {seed}" for seed in record["seeds"])]]
    for method, entries in record["results"].items():
        for metric, entry in entries.items():
            rows.append([method, metric, entry["mean"], entry["stderr"], *entry["values"]])
    return _link(rows)


def curves_csv(curves: Mapping[str, np.ndarray]) -> str | None:
    """A row per number of the curves; None where there is none, or too many for a page."""
    if not curves or 24 * sum(array.size for array in curves.values()) > MOST_BYTES:
        return None
    rows = [["curve", "seed number", "position", "value"]]
    for key, array in curves.items():
        for index, value in np.ndenumerate(array):
            rows.append([key, index[0], " ".join(map(str, index[1:])), value])
    return _link(rows)


def _link(rows: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return "data:text/csv;base64," + base64.b64encode(text.getvalue().encode()).decode()
