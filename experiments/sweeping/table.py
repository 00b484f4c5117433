# SPDX-License-Identifier: Apache-2.0
"""The numbers of all cells of a sweep in one table, from their records."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.run_folder import first_change, normalised
from experiments.sweeping.grid import Cell
from plprune.records import read_record, write_file

TABLE = "sweep.csv"


def write_table(folder: Path, done: Sequence[Cell], axes: Sequence[str]) -> list[str]:
    """One line for every metric of every method of every cell that is done.

    Returns:
      What is wrong with records that could not be read, or do not belong with the others.
    """
    runs, unread = _read(done)
    common = Counter(_flags(record) for _, record in runs if "numerics" in record).most_common(1)
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerow([*axes, "method", "metric", "mean", "stderr", "seeds"])
    for cell, record in runs:
        if change := "numerics" in record and first_change(
            dict(_flags(record)), dict(common[0][0])
        ):
            unread.append(_foreign(cell, change))
            continue
        for method, metrics in record["results"].items():
            for metric, entry in metrics.items():
                numbers = [entry["mean"], entry["stderr"], len(entry["values"])]
                table.writerow([*cell.settings.values(), method, metric, *numbers])
    write_file(folder / TABLE, lambda file: file.write(lines.getvalue().encode()))
    return unread


def _read(done):
    """The records of cells, and what is wrong with those that are not theirs."""
    runs, unread = [], []
    for cell in done:
        try:
            record, _ = read_record(cell.command.out)
        except ValueError as error:
            unread.append(str(error))
            continue
        config = normalised(dataclasses.asdict(cell.command.config))
        change = first_change({key: record["config"].get(key) for key in config}, config)
        if change:
            unread.append(_foreign(cell, change))
        else:
            runs.append((cell, record))
    return runs, unread


def _flags(record):
    """What changes numbers, but for the device, in which cells may differ."""
    return tuple(sorted((record["numerics"] | {"device": ""}).items()))


def _foreign(cell, change):
    return f"{cell.command.out} holds a run that does not belong here ({change})."
