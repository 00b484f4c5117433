# SPDX-License-Identifier: Apache-2.0
"""Whether the condition number goes with the two gaps: rank correlations with their intervals."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pl_pruning.methods import LOOKS, method_of
from experiments.report.style import legend_beside, legend_height, looks, new_figure

FEWEST = 8  # Runs below which no correlation is shown.
_DRAWS = 2000
# Settings in which records that are pooled may differ: the rest says what problem is solved, and
# how training and the condition number are measured.
_VARIED = {
    "network", "regimes", "keep", "methods", "seed", "seeds", "scale", "track", "wide_held_out"
}  # fmt: skip

Curves = Mapping[str, np.ndarray]
Record = Mapping[str, Any]
Named = Mapping[str, Any]


class Gaps(NamedTuple):
    """One entry per network, method, fraction and seed whose gaps and kappa are known."""

    methods: list[str]  # Keys of the record, such as gd/kappa@0.25.
    networks: list[str]
    kappa: np.ndarray
    # Training loss after the regime's `max_steps` less the lowest one of any run on the seed; steps
    # to a fixed target.
    convergence: np.ndarray
    generalisation: np.ndarray  # Test loss less training loss.
    left_out: dict[str, int]  # Why -> of how many runs.

    @property
    def kinds(self) -> list[str]:
        """What a run's seeds have in common: network, method and fraction."""
        return [" ".join(pair) for pair in zip(self.networks, self.methods, strict=True)]


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


class _Run(NamedTuple):
    """A method, fraction and seed; NaN where there is no number."""

    network: str
    method: str
    seed: int
    kappa: float
    slow: float  # Loss after `max_steps`, or steps to the target.
    generalisation: float
    lowest: float  # Training loss.

    @property
    def fault(self) -> str:
        """Why it has no place in the figure."""
        if not np.isfinite(self.kappa):
            return "condition number not resolved"
        if not np.isfinite(self.generalisation):
            return "diverged"
        return "" if np.isfinite(self.slow) else "target not reached"


def gaps_of(runs: Sequence[tuple[Record, Curves]], regime: Named) -> Gaps:
    """The gaps of all runs of a regime, in one or several records that `poolable` groups.

    Args:
      runs: Records with their curves. What several of them hold, such as dense, counts once.
      regime: As given in the records' configurations.
    """
    found: dict[tuple, _Run] = {}
    for record, curves in runs:
        for run in _runs(record, curves, regime):
            found.setdefault(run[:3], run)
    lowest: dict[int, float] = {}
    for run in found.values():
        lowest[run.seed] = np.fmin(run.lowest, lowest.get(run.seed, np.inf))
    kept = [run for run in found.values() if not run.fault]
    # Runs that stop at a target all have its loss.
    least = [0.0 if regime["target"] else lowest[run.seed] for run in kept]
    return Gaps(
        [run.method for run in kept],
        [run.network for run in kept],
        np.asarray([run.kappa for run in kept]),
        np.asarray([run.slow for run in kept]) - np.asarray(least),
        np.asarray([run.generalisation for run in kept]),
        dict(Counter(run.fault for run in found.values() if run.fault)),
    )


def poolable(runs: Sequence[tuple[Record, Curves]]) -> list[tuple[Named, list]]:
    """Regimes with the records that have them alike, for networks of any size; two at least."""
    groups: dict[str, tuple[Named, list]] = {}
    for record, curves in runs:
        config = record["config"]
        same = {name: value for name, value in config.items() if name not in _VARIED}
        for regime in config["regimes"]:
            key = json.dumps([same, regime], sort_keys=True)
            groups.setdefault(key, (regime, []))[1].append((record, curves))
    return [group for group in groups.values() if len(group[1]) > 1]


def gap_figure(runs: Sequence[tuple[Record, Curves]], regime: Named, title: str) -> Figure | None:
    """Both gaps against kappa; None where there are too few runs."""
    found = gaps_of(runs, regime)
    if len(found.kappa) < FEWEST or len(set(found.kinds)) < 3:
        return None
    entries = len({*map(method_of, found.methods)}) + len(set(found.networks))
    figure, (panels,) = new_figure(1, 2, panel=(5.4, legend_height(entries, 4.0)))
    fixed = f"training loss after {regime['max_steps']:,} steps\nless the seed's lowest one"
    slow = "steps to the target" if regime["target"] else fixed
    for axes, values, label in (
        (panels[0], found.convergence, f"convergence gap:\n{slow}"),
        (panels[1], found.generalisation, "generalisation gap:\ntest loss less training loss"),
    ):
        _scatter(axes, found, values)
        axes.set(xscale="log", xlabel="condition number at the start", ylabel=label)
        axes.set_title(correlation(found.kappa, values, found.kinds).text, fontsize=9)
    legend_beside(panels[1], panels[1])
    told = f"{len(found.kappa)} runs, brackets: 95 % intervals"
    if found.left_out:
        reasons = ", ".join(f"{count} ({why})" for why, count in found.left_out.items())
        told += f"; left out: {reasons}"
    figure.suptitle(f"{title}: the two gaps against the condition number\n{told}")
    return figure


def _scatter(axes: Axes, found: Gaps, values) -> None:
    """A colour and marker per method; a size per network where there are several."""
    names = list(dict.fromkeys(map(method_of, found.methods)))
    labels = _labels(found.networks)
    sizes = dict(zip(labels, np.linspace(4 if len(labels) > 1 else 5, 9, len(labels)), strict=True))
    for name, look in looks(names, LOOKS).items():
        look |= {"linestyle": "", "alpha": 0.8}
        for network, size in sizes.items():
            own = [
                i
                for i, (method, net) in enumerate(zip(found.methods, found.networks, strict=True))
                if (method_of(method), net) == (name, network)
            ]
            shown = found.kappa[own], values[own]
            axes.plot(*shown, ms=size, label=name if own else None, **look)
    if len(labels) > 1:
        for network, size in sizes.items():
            axes.plot([], [], "o", color="0.6", ms=size, label=labels[network])


def _labels(networks) -> dict[str, str]:
    """What tells each network from the others, the smallest first."""
    fields = {}
    for text in dict.fromkeys(networks):
        network = json.loads(text)
        fields[text] = dict(network["sizes"]) | {k: network[k] for k in ("kind", "exclude")}
    names = dict.fromkeys(name for own in fields.values() for name in own)
    differing = [n for n in names if len({json.dumps(own.get(n)) for own in fields.values()}) > 1]
    order = sorted(fields, key=lambda text: sum(map(int, re.findall(r"\b\d+\b", text))))
    return {
        text: ", ".join(f"{n} {re.sub('[][]', '', str(fields[text].get(n)))}" for n in differing)
        for text in order
    }


def _runs(record, curves, regime) -> list[_Run]:
    network = json.dumps(record["config"]["network"])
    found = []
    for method, entry in record["results"].items():
        if not method.startswith(f"{regime['name']}/"):
            continue
        losses, steps = (curves[f"{method}/{name}"] for name in ("train_loss", "step"))
        names = ("kappa", "train_loss", "test_loss", "steps_to_target")
        each = zip(*(entry[name]["values"] for name in names), strict=True)
        for place, numbers in enumerate(each):
            kappa, train, test, reached = np.asarray(numbers, float)  # None is NaN.
            near = np.argmin(np.abs(steps[place] - regime["max_steps"]))
            slow = reached if regime["target"] else losses[place, near]
            finite = losses[place][np.isfinite(losses[place])]
            lowest = finite.min() if len(finite) else np.nan
            seed = record["config"]["seed"] + place
            found.append(_Run(network, method, seed, kappa, slow, test - train, lowest))
    return found


def correlation(one: np.ndarray, other: np.ndarray, methods: list[str]) -> Correlation:
    """Spearman's correlation; whole methods are drawn again, since their seeds are alike."""
    names, places = np.unique(methods, return_inverse=True)
    drawn = np.random.default_rng(0).integers(len(names), size=(_DRAWS, len(names)))
    # How often each run was drawn, for all draws at once; drawing none again is the value itself.
    counts = np.stack([np.bincount(draw, minlength=len(names)) for draw in drawn])[:, places]
    value, *found = _spearman(one, other, np.vstack([np.ones(len(one)), counts]))
    known = [correlation for correlation in found if np.isfinite(correlation)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (-1.0, 1.0)
    return Correlation(float(value), float(low), float(high))


def _spearman(one, other, counts):
    """Rank correlations with each row of counts of the entries; NaN where all are equal."""
    total = counts.sum(1, keepdims=True)
    ranks = []
    for values in (one, other):
        below = (values[:, None] < values).astype(float)
        tied = (values[:, None] == values).astype(float)
        places = counts @ (below + tied / 2)  # Ranks less 1/2: ties share the middle of theirs.
        ranks.append(places - np.sum(counts * places, 1, keepdims=True) / total)
    left, right = ranks
    spread = np.sum(counts * left**2, 1) * np.sum(counts * right**2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(counts * left * right, 1) / np.sqrt(spread)
