# SPDX-License-Identifier: Apache-2.0
"""The figures of one regime, drawn from a record alone."""

import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pl_pruning.methods import KEEP_ALL, LOOKS, METHODS, WHOLE, method_of
from experiments.pl_pruning.settings import Config, Regime, key_of, regime_of, tracked_steps
from experiments.report.style import draw_curve, legend_beside, legend_height, looks, new_figure

Curves = Mapping[str, np.ndarray]
Record = Mapping[str, Any]
_ROW = 0.24  # Inches for each method of a panel with a row for each.


def overview(record: Record, curves: Curves, regime: Mapping[str, Any]) -> Figure:
    """Loss, steps to the target, condition number and accuracy."""
    methods = _methods(record, regime)
    height = max(3.4, 1 + _ROW * len(methods))
    figure, ((loss, steps), (kappa, accuracy)) = new_figure(2, 2, panel=(4.9, height))
    _against_steps(loss, curves, methods, "train_loss")
    if regime["target"]:
        loss.axhline(regime["target"], color="0.5", lw=0.8, ls=":")
    loss.set(yscale="log", xlabel="gradient steps", ylabel="training loss")
    _legend(loss, steps)
    named = {method_of(method): entries for method, entries in methods.items()}
    _draw_points(steps, named, "steps_to_target", "steps to the target", missing="not reached")
    _draw_points(kappa, named, "kappa", "condition number on held-out examples")
    kappa.set_xscale("log")
    _draw_points(accuracy, named, "test_accuracy", "test accuracy")
    figure.suptitle(f"Regime {regime['name']}")
    return figure


def in_time(record: Record, curves: Curves, regime: Mapping[str, Any]) -> Figure:
    """Accuracy against steps, and both against wall time with the gating included."""
    methods = _methods(record, regime)
    height = legend_height(len(methods), 3.4)
    figure, ((steps, loss, accuracy),) = new_figure(1, 3, panel=(4.6, height))
    _against_steps(steps, curves, methods, "test_accuracy")
    steps.set(xlabel="gradient steps", ylabel="test accuracy")
    for axes, curve, label in (
        (loss, "train_loss", "training loss"),
        (accuracy, "test_accuracy", "test accuracy"),
    ):
        for method in methods:
            # Seconds after the same steps differ between seeds by noise alone.
            seconds = curves[f"{method}/train_seconds"].mean(0)
            draw_curve(axes, seconds, curves[f"{method}/{curve}"], **_look(method, methods))
        axes.set(xlabel="seconds, gating included", ylabel=label)
    loss.set_yscale("log")
    _legend(steps, accuracy)
    figure.suptitle(f"Regime {regime['name']}: accuracy and loss against steps and wall time")
    return figure


def conditioning(record: Record, curves: Curves, regime: Mapping[str, Any]) -> Figure:
    """Kappa, mu, L and the kept fraction along training."""
    methods = _methods(record, regime)
    figure, panels = new_figure(1, 4, panel=(3.9, legend_height(len(methods), 3.4)))
    named = {
        "kappa": "condition number",
        "pl_constant": "PL constant",
        "lipschitz_constant": "Hessian norm",
    }
    times = {m: tracked_times(record["config"], regime, method_of(m)) for m in methods}
    for axes, (curve, label) in zip(panels[0], named.items(), strict=False):
        for method in methods:
            look, values = _look(method, methods), curves[f"{method}/{curve}"]
            draw_curve(axes, times[method], values, label=method_of(method), **look)
            axes.lines[-1].set(marker=look["marker"], markersize=4)  # Where it was measured.
        _space_by_powers(axes, times[next(iter(methods))])
        axes.set(yscale="log", ylabel=label)
    _kept_along(panels[0, 3], curves, methods)
    panels[0, 3].set(ylabel="kept fraction of the nodes", ylim=(0, 1.05))
    for axes in panels[0]:
        axes.set_xlabel("gradient steps")
        if regime["period"]:
            axes.axvspan(0, regime["freeze_at"], color="0.5", alpha=0.15, lw=0)
    _legend(panels[0, 0], panels[0, 3])
    shaded = "; shaded: nodes are chosen" if regime["period"] else ""
    figure.suptitle(f"Regime {regime['name']}: conditioning along training{shaded}")
    return figure


def against_fraction(record: Record, regime: Mapping[str, Any]) -> Figure:
    """Accuracy and condition number against the kept fraction, from whole networks at 1 on."""
    methods, name = record["config"]["methods"], regime["name"]
    figure, panels = new_figure(1, 2, panel=(5.4, legend_height(len(methods), 4.2)))
    for axes, metric, label in (
        (panels[0, 0], "test_accuracy", "test accuracy"),
        (panels[0, 1], "kappa", "condition number at the start"),
    ):
        whole = {m: _entry(record, f"{name}/{m}", metric) for m in methods if m in WHOLE}
        for method, entry in whole.items():
            if entry:
                _draw_bars(axes, method, methods, [(1.0, *entry)])
        pruned = [m for m in methods if m not in KEEP_ALL]
        for place, method in enumerate(pruned):
            points = _over_fractions(record, name, method, metric)
            # Shifted a little, or the bars hide each other.
            shift = 1 + 0.012 * (place - (len(pruned) - 1) / 2)
            shifted = [(shift * fraction, *entry) for fraction, entry in points.items()]
            start = None if 1.0 in points else whole.get(_begins_as(method))
            start = (1.0, *start) if start else None
            _draw_bars(axes, method, methods, shifted, start)
        axes.set(xscale="log", xlabel="kept fraction of the nodes", ylabel=label)
        fractions = sorted({*record["config"]["keep"], *([1.0] if whole else [])})
        axes.set_xticks(fractions, [f"{f:g}" for f in fractions])
        axes.set_xticks([], minor=True)
        axes.set_title(_unresolved(record, name, metric), fontsize=8)
    panels[0, 1].set_yscale("log")
    legend_beside(panels[0, 0], panels[0, 1])
    figure.suptitle(f"Regime {name}: accuracy and condition number against the kept fraction")
    return figure


def kept_nodes(record: Record, curves: Curves, regime: Mapping[str, Any]) -> Figure:
    """Which nodes each method keeps, layer by layer, from the largest norm to the smallest."""
    methods = [m for m in _methods(record, regime) if method_of(m) not in KEEP_ALL]
    marks = f"{methods[0]}/kept "
    groups = [key.removeprefix(marks) for key in curves if key.startswith(marks)]
    height = 0.8 + 0.22 * len(methods)
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    figure, panels = new_figure(rows, columns, panel=(3.6, height))
    for axes, group in zip(panels.ravel(), groups, strict=False):
        shown = np.stack([curves[f"{method}/kept {group}"].mean(0) for method in methods])
        axes.imshow(shown, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        axes.grid(visible=False)
        axes.set_title(group, fontsize=9)
        axes.set_yticks(range(len(methods)), [method_of(m) for m in methods], fontsize=8)
        axes.set_xlabel("nodes, largest norm first", fontsize=9)
    for axes in panels.ravel()[len(groups) :]:
        axes.set_axis_off()
    figure.suptitle(f"Regime {regime['name']}: share of the seeds that keep a node (yellow: all)")
    return figure


def tracked_times(config: Mapping[str, Any], regime: Mapping[str, Any], method: str) -> list[int]:
    """The steps at which a method's kappa, mu and L were measured."""
    return tracked_steps(Config(**config), regime_of(Regime(**regime), method))


def _methods(record, regime) -> dict[str, Any]:
    """The regime's entries at the first fraction, dense included."""
    start = f"{regime['name']}/"
    own = {m: e for m, e in record["results"].items() if m.startswith(start) and "@" not in m}
    suffixed = f"@{record['config']['keep'][0]:g}"
    first = {
        m: e for m, e in record["results"].items() if m.startswith(start) and m.endswith(suffixed)
    }
    return own if len(own) > len(first) else own | first


def _look(method, methods):
    return looks(map(method_of, methods), LOOKS)[method_of(method)]


def _draw_points(
    axes: Axes,
    methods: Mapping[str, Mapping[str, Any]],
    metric: str,
    label: str,
    *,
    missing: str = "not resolved",
) -> None:
    """One row per method: every seed as a dot, the mean with its standard error.

    Where seeds have no value there is no mean, and the row says `missing` and of how many.
    """
    shown = [m for m, entries in methods.items() if metric in entries]
    for row, method in enumerate(shown):
        entry, look = methods[method][metric], _look(method, shown)
        values = [v for v in entry["values"] if v is not None]
        axes.plot(values, [row] * len(values), "o", color=look["color"], alpha=0.4, ms=4)
        if entry["mean"] is not None:
            axes.errorbar(
                entry["mean"], row, xerr=entry["stderr"], color=look["color"],
                marker=look["marker"], ms=7, capsize=3,
            )  # fmt: skip
        else:
            unseen = f"{missing}: {len(entry['values']) - len(values)} of {len(entry['values'])}"
            # Below the row's dots, which it would hide.
            place = {"xycoords": axes.get_yaxis_transform(), "va": "center", "fontsize": 7}
            axes.annotate(unseen, (0.02, row + 0.36), **place)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(label)


def _against_steps(axes: Axes, curves, methods, curve) -> None:
    for method in methods:
        steps = curves[f"{method}/step"]
        values = curves[f"{method}/{curve}"]
        # Seeds that end early stand still: the longest one's steps serve all.
        longest = int(np.argmax(steps[:, -1]))
        draw_curve(axes, steps[longest], values, label=method_of(method), **_look(method, methods))


def _space_by_powers(axes: Axes, times) -> None:
    """Equal distances between steps that are multiples of each other, with 0 among them."""
    if len(times) > 2:
        first = next(time for time in times if time)
        axes.set_xscale("symlog", linthresh=first, linscale=0.6)
        close = {new for old, new in pairwise(times) if old and new <= 2 * old} - {times[-1]}
        labels = ["" if time in close else f"{time:,}" for time in times]
        axes.set_xticks(times, labels)
        axes.set_xticks([], minor=True)


def _kept_along(axes: Axes, curves, methods) -> None:
    """All nodes before the first step, then the share that is kept, to each method's last step."""
    drawn: dict[bytes, list[str]] = {}
    for method in methods:
        shares = curves[f"{method}/kept_fraction"]
        drawn.setdefault(shares.tobytes(), []).append(method)
    for alike in drawn.values():
        for place, method in enumerate(alike):
            shares, last = curves[f"{method}/kept_fraction"], curves[f"{method}/step"].max()
            once = shares.shape[1] == 1
            steps = [0, 0, last] if once else [*range(shares.shape[1] + 1), last]
            look = _look(method, methods)
            if len(alike) > 1:  # Lines that hide each other take turns.
                look["linestyle"] = (4 * place, (4, 4 * (len(alike) - 1)))
            ends = np.ones_like(shares[:, :1]), shares, shares[:, -1:]
            draw_curve(axes, steps, np.concatenate(ends, axis=1), **look)


def _begins_as(method) -> str:
    """The whole network that a method's curve begins with; none where it has weights of its own."""
    own = METHODS.get(method, METHODS["dense"])
    return "" if own.changes("fresh") else "dense_small" if own.changes("halved") else "dense"


def _draw_bars(axes: Axes, method, methods, points, start=None) -> None:
    """A method's points with their bars, joined to each other and to a `start` without one."""
    joined = sorted([*points, *([start] if start else [])])
    if points:
        look = _look(method, methods) | {"zorder": 4 if method in WHOLE else 3}
        fractions, means, errors = zip(*points, strict=True)
        axes.errorbar(fractions, means, errors, fmt="none", ecolor=look["color"], capsize=2)
        axes.plot(*zip(*(point[:2] for point in joined), strict=True), label=method, ms=4, **look)


def _over_fractions(record, regime, method, metric) -> dict[float, tuple[float, float]]:
    """Mean and standard error at each fraction that has them."""
    keys = _keys(record["config"], regime, method)
    found = {fraction: _entry(record, key, metric) for fraction, key in keys.items()}
    return {fraction: entry for fraction, entry in found.items() if entry}


def _entry(record, key, metric) -> tuple[float, float] | None:
    entry = record["results"].get(key, {}).get(metric)
    if not entry or entry["mean"] is None:
        return None
    return entry["mean"], entry["stderr"] or 0.0


def _keys(config, regime, method) -> dict[float, str]:
    """The record's key of a method at each fraction."""
    own = Config(**config)
    return {keep: f"{regime}/{key_of(own, method, keep)}" for keep in config["keep"]}


def _unresolved(record, regime, metric) -> str:
    """Which points are not drawn, since some seed has no number."""
    config, missing = record["config"], []
    for method in config["methods"]:
        for key in dict.fromkeys(_keys(config, regime, method).values()):
            values = record["results"].get(key, {}).get(metric, {}).get("values", [])
            absent = sum(value is None for value in values)
            if absent:
                name = key.rpartition("/")[2]
                missing.append(f"{name} ({absent} of {len(values)} seeds)")
    return textwrap.fill(f"not resolved: {', '.join(missing)}", 70) if missing else ""


def _legend(axes: Axes, last: Axes) -> None:
    """In the axes, or beside the last of the row where it would hide their curves."""
    if len(axes.get_legend_handles_labels()[1]) <= 4:
        axes.legend(fontsize=9)
    else:
        legend_beside(axes, last)
