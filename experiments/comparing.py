# SPDX-License-Identifier: Apache-2.0
"""Which results of two records differ by more than their seeds do.

Runs on the same seeds are compared seed by seed, others by the standard errors of both. Seconds are
left out, since they are the machine's. Among many results some differ by chance: how many is said.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from experiments.report.tables import NO_NUMBER, number
from plprune.records import RECORD, read_record, summary

CLEAR = 2.0  # Standard errors.
Entry = Mapping[str, Any]  # "mean", "stderr" and "values", as in a record.


class Difference(NamedTuple):
    """One metric of one method in both records."""

    name: str  # "method/metric".
    first: Entry
    second: Entry
    errors: float | None  # Second less first, in standard errors; None where seeds don't tell.
    by_chance: float = 0.0  # The probability that as many seeds of one law differ clearly.

    @property
    def is_clear(self) -> bool:
        """Whether it is more than two standard errors."""
        return self.errors is not None and abs(self.errors) > CLEAR

    @property
    def is_open(self) -> bool:
        """Whether the numbers differ and nothing tells whether that is chance."""
        return self.errors is None and self.first["values"] != self.second["values"]


class Comparison(NamedTuple):
    """All results that two records share, and the names of the others."""

    shared: list[Difference]
    only_first: list[str]
    only_second: list[str]

    def lines(self) -> list[str]:
        """What there is to say besides the table."""
        clear, undecided = self.clear, [d.name for d in self.shared if d.is_open]
        told = sum(d.errors is not None for d in self.shared)
        chance = sum(d.by_chance for d in self.shared)
        lines = [f"{len(clear)} of {told} results differ by more than two standard errors"]
        lines[0] += f"; about {chance:.1f} would by chance." if chance else "."
        if undecided:
            lines.append(f"Too few seeds, or not resolved in one: {', '.join(undecided)}.")
        for which, names in (("first", self.only_first), ("second", self.only_second)):
            if names:
                lines.append(f"Only in the {which}: {', '.join(names)}.")
        return lines

    @property
    def clear(self) -> list[Difference]:
        """Those of more than two standard errors, the largest first."""
        found = [d for d in self.shared if d.is_clear]
        return sorted(found, key=lambda d: -abs(d.errors or 0.0))


def compare(first: str | Path, second: str | Path) -> Comparison:
    """The results of two records, each a run's folder or the file in it.

    Raises:
      ValueError: as of `read_record`, or where the records have no result in common.
    """
    folders = [Path(path).parent if Path(path).name == RECORD else path for path in (first, second)]
    records = [read_record(folder)[0] for folder in folders]
    left, right = (dict(_entries(record)) for record in records)
    shared = [name for name in left if name in right]
    if not shared:
        raise ValueError(f"{first} and {second} have no result in common.")
    paired = records[0]["seeds"] == records[1]["seeds"]
    return Comparison(
        [_difference(name, left[name], right[name], paired) for name in shared],
        [name for name in left if name not in right],
        [name for name in right if name not in left],
    )


def show(comparison: Comparison, console: Console) -> None:
    """Print what differs clearly as a table, then the rest in sentences."""
    if comparison.clear:
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("result", "first", "second", "difference"):
            table.add_column(column, justify="left" if column == "result" else "right")
        for found in comparison.clear:
            entries = (_told(found.first), _told(found.second))
            table.add_row(Text(found.name), *entries, f"{found.errors:+.1f} se")
        console.print(table)
    for line in comparison.lines():
        console.print(Text(line), soft_wrap=True)


def _entries(record) -> Iterator[tuple[str, Entry]]:
    for method, metrics in record["results"].items():
        for metric, entry in metrics.items():
            if not metric.endswith("_seconds"):
                yield f"{method}/{metric}", entry


def _difference(name, first, second, paired) -> Difference:
    found = Difference(name, first, second, None)
    if first["mean"] is None or second["mean"] is None:
        return found
    values = first["values"], second["values"]
    if paired:
        difference = summary([b - a for a, b in zip(*values, strict=True)])
        mean, error, freedom = difference["mean"], difference["stderr"], len(values[0]) - 1
    else:
        mean = second["mean"] - first["mean"]
        error = math.hypot(first["stderr"] or 0.0, second["stderr"] or 0.0)
        freedom = min(map(len, values)) - 1
    if freedom < 1:
        return found
    if mean and not error:
        return found._replace(errors=math.copysign(math.inf, mean))
    chance = 2 * float(stats.t.sf(CLEAR, freedom)) if error else 0.0
    return found._replace(errors=mean / error if mean else 0.0, by_chance=chance)


def _told(entry):
    return NO_NUMBER if entry["mean"] is None else number(entry["mean"], entry["stderr"])
