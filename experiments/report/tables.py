# SPDX-License-Identifier: Apache-2.0
"""Tables of a record: numbers with units and standard errors, as text for page and terminal."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

NO_NUMBER = "\N{EN DASH}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
SECONDS = {0: "s", -3: "ms", -6: "\N{GREEK SMALL LETTER MU}s"}


class Metric(NamedTuple):
    """How one metric is named, shown and explained."""

    label: str
    meaning: str  # How it was measured, in a sentence.
    unit: str = ""  # "%" shows a fraction as per cent.
    better: str = ""  # "lower", "higher" or neither.
    missing: str = "not resolved"  # What a null says.


class Cell(NamedTuple):
    """One entry of a table: its text, and the number it sorts by (None sorts last)."""

    text: str
    value: float | None = None
    link: str = ""


class Table(NamedTuple):
    """A titled table; the first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    @property
    def are_words(self) -> list[bool]:
        """Whether a column is to be read, not compared: nothing in it sorts by a number."""
        places = range(len(self.columns))
        return [all(row[place].value is None for row in self.rows) for place in places]


def metric_tables(record: Mapping[str, Any], metrics: Mapping[str, Metric]) -> list[Table]:
    """One table per regime of the record: a row per method and a column per metric.

    Methods of a regime that have no metric in common, not even through others, are kept apart.
    """
    regimes: dict[str, dict[str, Any]] = {}
    for method, entries in record["results"].items():
        regime, _, name = method.rpartition("/")
        regimes.setdefault(regime, {})[name] = entries
    return [
        _regime_table(regime, methods, metrics)
        for regime, everything in regimes.items()
        for methods in _related(everything)
    ]


def known_metrics(record: Mapping[str, Any], known: Mapping[str, Metric]) -> dict[str, Metric]:
    """Every metric of the record, in its order; those that are not known go by their name."""
    names = dict.fromkeys(name for entries in record["results"].values() for name in entries)
    return {name: known.get(name, _unexplained(name)) for name in names}


def side_by_side(table: Table, width: int) -> list[list[tuple[Cell, ...]]]:
    """The rows of a table in groups that stand side by side, each as a column, within `width`."""
    names = max(len(column) for column in table.columns) + 4
    room, groups = 0, []
    for row in table.rows:
        needed = max(len(cell.text) for cell in row) + 2
        if needed > room:
            groups.append([])
            room = width - names
        groups[-1].append(row)
        room -= needed
    return groups


def number(mean: float | None, stderr: float | None = None) -> str:
    """A mean with its standard error, both to the second digit of the error.

    Four digits where there is no error. Large and small ones are written with powers of ten.
    """
    if mean is None:
        return NO_NUMBER
    if not stderr or stderr < 1e-12 * abs(mean):
        return _plain(mean)
    size = max(abs(mean), stderr)
    power = 0 if 1e-3 <= size < 1e6 else _magnitude(size)
    scaled, error = mean / 10.0**power, stderr / 10.0**power
    decimals = max(0, 1 - _magnitude(error))
    if decimals > 6:  # Too many to read: each with its own power.
        return f"{_plain(mean)} {PLUS_MINUS} {_plain(stderr, digits=2)}"
    text = f"{scaled:,.{decimals}f} {PLUS_MINUS} {error:,.{decimals}f}"
    return f"({text}) {_ten_to(power)}" if power else text


def metric_cell(entry: Mapping[str, Any] | None, metric: Metric, power: int = 0) -> Cell:
    """The cell of one metric of one method: mean and standard error, or what its nulls say.

    Args:
      entry: Of the record; None leaves the cell empty.
      metric: Says how it is shown.
      power: The numbers are shown in units of ten to this power.
    """
    if entry is None:
        return Cell("")
    values = entry["values"]
    if entry["mean"] is None:
        missing = sum(value is None for value in values)
        some = "" if missing == len(values) else f" on {missing} of {len(values)} seeds"
        return Cell(f"{metric.missing}{some}")
    scale = 100.0 if metric.unit == "%" else 10.0**-power
    stderr = None if entry["stderr"] is None else scale * entry["stderr"]
    return Cell(number(scale * entry["mean"], stderr), entry["mean"])


def _related(methods) -> list[dict[str, Any]]:
    """The methods in blocks whose metrics are connected, in order of their first."""
    names = {name for entries in methods.values() for name in entries}
    has = np.array([[name in entries for name in names] for entries in methods.values()], int)
    count, blocks = connected_components(has @ has.T, directed=False)
    items = list(zip(methods.items(), blocks, strict=True))
    return [dict(item for item, own in items if own == block) for block in range(count)]


def _regime_table(regime, methods, metrics):
    used = [name for name in metrics if any(name in entries for entries in methods.values())]
    powers = {name: _common_power(name, methods, metrics[name]) for name in used}
    columns = ("method", *(_heading(metrics[name], powers[name]) for name in used))
    rows = tuple(
        (
            Cell(method),
            *(metric_cell(entries.get(name), metrics[name], powers[name]) for name in used),
        )
        for method, entries in methods.items()
    )
    return Table(regime, columns, rows)


def _common_power(name, methods, metric):
    """The power of ten that a column's heading may carry for all of its numbers; 0 for none."""
    means = [abs(e[name]["mean"]) for e in methods.values() if name in e and e[name]["mean"]]
    if metric.unit == "s" and means:
        return next((power for power in SECONDS if max(means) >= 10.0**power), min(SECONDS))
    if metric.unit or not means or (min(means) >= 1e-2 and max(means) < 1e6):
        return 0
    if max(means) >= 1e3 * min(means):
        return 0  # Too far apart to share one.
    power = _magnitude(max(means))
    return power if power < 0 else 3 * (power // 3)


def _heading(metric: Metric, power: int) -> str:
    arrow = {"lower": " \N{DOWNWARDS ARROW}", "higher": " \N{UPWARDS ARROW}"}.get(metric.better, "")
    unit = SECONDS[power] if metric.unit == "s" else metric.unit
    unit = unit or (f"in 10{_raised(power)}" if power else "")
    return metric.label + (f" ({unit})" if unit else "") + arrow


def _unexplained(name: str) -> Metric:
    unit = "s" if name.endswith("_seconds") else ""
    return Metric(name.removesuffix("_seconds").replace("_", " "), "", unit)


def _plain(value, digits=4):
    whole = float(f"{value:.12g}")  # 100 * 0.29 is one.
    if whole.is_integer() and abs(whole) < 1e9:
        return f"{whole:,.0f}"
    power = _magnitude(abs(value))
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:,.{max(0, digits - 1 - power)}f}"
    return f"{value / 10.0**power:.{digits - 1}f} {_ten_to(power)}"


def _magnitude(value):
    """The power of ten below `value`; ten to it, and to its negative, is a float."""
    return max(-307, math.floor(math.log10(value))) if value else 0


def _ten_to(power):
    return f"\N{MULTIPLICATION SIGN} 10{_raised(power)}"


def _raised(power):
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
