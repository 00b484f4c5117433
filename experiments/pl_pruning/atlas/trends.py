# SPDX-License-Identifier: Apache-2.0
"""How much faster kappa's half trains than others, in every cell, with what the seeds resolve.

R is the geometric mean over the seeds of a rival's cost over kappa's, paired by seed, with the
interval of 95 % of Student's t; both hold the error of rates that lie on a grid. The best other
half is the fastest of those that are resolved as faster, or else the one whose interval reaches
lowest: kappa's is faster only where every rival is resolved as slower. A run that misses the target
costs what its longest run does, so that a ratio of one such is a bound.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

from experiments.pl_pruning.atlas.config import RATIO, RIVALS, cell_named
from experiments.report.tables import PLUS_MINUS

Methods = Mapping[str, Mapping[str, Any]]  # Of a cell: method -> metric -> entry of a record.
Config = Mapping[str, Any]  # Of a record.
STEPS, FLOPS, SECONDS = "steps_to_target", "flops_to_target", "seconds_to_target"
# Steps go with one over the rate where the largest stable one is the best: two uniform errors.
_GRID_ERROR = float(np.log(RATIO) / 6**0.5)
_UNITS = {STEPS: None, FLOPS: "step_flops", SECONDS: "step_seconds"}


class Ratio(NamedTuple):
    """A rival's cost over another's; above 1 the other is cheaper."""

    rival: str
    value: float
    error: float  # Of `value`, one standard error.
    low: float
    high: float
    bound: str = ""  # "≥" or "≤" where runs of the one or the other miss the target.
    fault: str = ""  # Why there is no number.

    @property
    def verdict(self) -> str:
        """What the seeds resolve."""
        if self.fault or not (self.low > 1 or self.high < 1):
            return "not resolved"
        if self.bound == ("≤" if self.value > 1 else "≥"):
            return "not resolved"  # The bound says nothing.
        return "faster" if self.value > 1 else "slower"

    @property
    def text(self) -> str:
        """The number, in brackets where it is not resolved."""
        if self.fault:
            return self.fault
        error = "" if self.bound else f" {PLUS_MINUS} {self.error:.2f}"
        told = f"{self.bound}{self.value:.2f}{error}"
        return f"({told})" if self.verdict == "not resolved" else told


def by_cell(results: Mapping[str, Any]) -> Mapping[str, Methods]:
    """The methods of every cell of a record's results."""
    cells: dict[str, dict[str, Any]] = {}
    for key, entries in results.items():
        cell, _, method = key.rpartition("/")
        cells.setdefault(cell, {})[method] = entries
    return cells


def most_steps(config: Config, cell: str) -> int:
    """Steps of a cell's longest runs."""
    return config["gd_steps" if cell_named(cell).optimizer == "gd" else "max_steps"]


def best_other(methods: Methods, most: int, metric: str = STEPS) -> Ratio | None:
    """R against the best other half; None where there is none. `most` is of `most_steps`."""
    found = [ratio(methods, most, name, metric) for name in RIVALS]
    known = [one for one in found if one is not None and not one.fault]
    if not known:
        return next((one for one in found if one is not None), None)
    ahead = [one for one in known if one.verdict == "slower"]
    return min(ahead, key=lambda one: one.value) if ahead else min(known, key=lambda one: one.low)


def ratio(
    methods: Methods, most: int, rival: str, metric: str = STEPS, own: str = "kappa"
) -> Ratio | None:
    """The cost of `rival` over that of `own`; None in a cell that lacks one of them."""
    if not {rival, own} <= {*methods}:
        return None
    (above, missed), (below, lost) = (_costs(methods[m], most, metric) for m in (rival, own))
    if not all(methods[name]["interior"]["mean"] == 1 for name in (rival, own)):
        return Ratio(rival, 1.0, 0.0, 1.0, 1.0, fault="no rate")
    if missed.all() and lost.all():
        return Ratio(rival, 1.0, 0.0, 1.0, 1.0, fault="not reached")
    logs = np.log(above) - np.log(below)
    value, size = float(np.exp(np.mean(logs))), len(logs)
    error = float(np.std(logs, ddof=1)) / size**0.5 if size > 1 else np.inf
    error = float(np.hypot(error, _GRID_ERROR))
    reach = np.exp(error * float(t.ppf(0.975, max(1, size - 1))))
    bound = "" if missed.sum() == lost.sum() == 0 else "≥" if missed.sum() > lost.sum() else "≤"
    return Ratio(rival, value, error * value, value / reach, value * reach, bound)


def gap(methods: Methods, rivals: Iterable[str], metric: str) -> tuple[float, float] | None:
    """Kappa's accuracy less the best rival's, and its standard error, paired by seed."""
    means = {name: methods[name][metric]["mean"] for name in rivals if name in methods}
    known = {name: mean for name, mean in means.items() if mean is not None}
    if not known or methods["kappa"][metric]["mean"] is None:
        return None
    rival = max(known, key=known.__getitem__)
    pair = [np.asarray(methods[name][metric]["values"], float) for name in ("kappa", rival)]
    less = pair[0] - pair[1]
    error = np.std(less, ddof=1) / len(less) ** 0.5 if len(less) > 1 else 0.0
    return float(np.mean(less)), float(error)


def counted(ratios: Iterable[Ratio | None]) -> str:
    """How many cells are won, lost and open, in words."""
    verdicts = [found.verdict for found in ratios if found is not None]
    parts = [f"{verdicts.count(key)} {key}" for key in ("faster", "slower", "not resolved")]
    return f"of {len(verdicts)} cells {', '.join(parts)}"


def _costs(entries, most, metric) -> tuple[np.ndarray, np.ndarray]:
    """Per seed; the longest run's where the target is missed, and where that is so."""
    values = np.asarray(entries[metric]["values"], float)
    unit = _UNITS[metric]
    each = 1.0 if unit is None else entries[unit]["mean"]
    missed = np.isnan(values)
    return np.where(missed, each * most, np.maximum(values, each)), missed
