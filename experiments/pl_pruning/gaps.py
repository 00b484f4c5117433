# SPDX-License-Identifier: Apache-2.0
"""Whether the condition number goes with the two gaps: rank correlations with their intervals."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

FEWEST = 8  # Runs below which no correlation is shown.
_DRAWS = 2000


class Gaps(NamedTuple):
    """One entry per method, fraction and seed of a regime whose kappa is resolved."""

    methods: list[str]
    kappa: np.ndarray
    # Training loss after the last step less the lowest one of its seed; steps to a fixed target.
    convergence: np.ndarray
    generalisation: np.ndarray  # Test loss less training loss.


class Correlation(NamedTuple):
    """Spearman's correlation with its bootstrap interval of 95 %."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """Both, and whether zero lies within."""
        null = ", no correlation seen" if self.low <= 0 <= self.high else ""
        return f"Spearman {self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]{null}"


def gaps_of(record: Mapping[str, Any], regime: Mapping[str, Any]) -> Gaps:
    """The gaps of all runs of a regime, given as in the record's configuration."""
    start = f"{regime['name']}/"
    entries = {m: e for m, e in record["results"].items() if m.startswith(start)}
    reached = "steps_to_target" if regime["target"] else "train_loss"
    rows = []
    for method, entry in entries.items():
        names = ("kappa", "train_loss", "test_loss", reached)
        each = zip(*(entry[name]["values"] for name in names), strict=True)
        rows += [(method, seed, *values) for seed, values in enumerate(each) if None not in values]
    lowest: dict[int, float] = {}
    for _, seed, _, loss, *_ in rows:
        # Runs that stop at the target all have its loss.
        lowest[seed] = 0.0 if regime["target"] else min(loss, lowest.get(seed, np.inf))
    return Gaps(
        [row[0] for row in rows],
        np.asarray([row[2] for row in rows]),
        np.asarray([row[5] - lowest[row[1]] for row in rows]),
        np.asarray([row[4] - row[3] for row in rows]),
    )


def correlation(one: np.ndarray, other: np.ndarray, methods: list[str]) -> Correlation:
    """Spearman's correlation; whole methods are drawn again, since their seeds are alike."""
    from scipy.stats import spearmanr

    draws, names = np.random.default_rng(0), sorted(set(methods))
    places = {name: np.flatnonzero(np.asarray(methods) == name) for name in names}
    found = []
    for _ in range(_DRAWS):
        chosen = np.concatenate(
            [places[names[i]] for i in draws.integers(len(names), size=len(names))]
        )
        if min(np.ptp(one[chosen]), np.ptp(other[chosen])) > 0:
            found.append(spearmanr(one[chosen], other[chosen]).statistic)
    low, high = np.quantile(found, [0.025, 0.975]) if found else (-1.0, 1.0)
    return Correlation(float(spearmanr(one, other).statistic), float(low), float(high))
