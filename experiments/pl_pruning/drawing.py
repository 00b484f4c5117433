# SPDX-License-Identifier: Apache-2.0
"""The figures of one regime, drawn from a record alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import (
    INK,
    draw_curve,
    draw_points,
    method_style,
    new_figure,
)
from experiments.pl_pruning.gaps import FEWEST, correlation, gaps_of
from experiments.pl_pruning.methods import KEEP_ALL, method_of

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
    draw_points(steps, named, "steps_to_target", "steps to the target", missing="not reached")
    draw_points(kappa, named, "kappa", "condition number on held-out examples")
    kappa.set_xscale("log")
    draw_points(accuracy, named, "test_accuracy", "test accuracy")
    figure.suptitle(f"Regime {regime['name']}")
    return figure


def in_time(record: Record, curves: Curves, regime: Mapping[str, Any]) -> Figure:
    """Accuracy against steps, and both against wall time with the gating included."""
    methods = _methods(record, regime)
    figure, ((steps, loss, accuracy),) = new_figure(1, 3)
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
    figure, panels = new_figure(1, 4, panel=(3.9, 3.4))
    named = {
        "kappa": "condition number",
        "pl_constant": "PL constant",
        "lipschitz_constant": "Hessian norm",
    }
    for axes, (curve, label) in zip(panels[0], named.items(), strict=False):
        for method in methods:
            values = curves[f"{method}/{curve}"]
            draw_curve(
                axes, range(values.shape[1]), values,
                label=method_of(method), **_look(method, methods),
            )  # fmt: skip
        count = values.shape[1]
        ticks = ["0", *(f"1/{4**k}" if k else "end" for k in range(count - 2, -1, -1))]
        axes.set_xticks(range(count), ticks[:count])
        axes.set(yscale="log", xlabel="part of the steps", ylabel=label)
    for method in methods:
        shares = curves[f"{method}/kept_fraction"]
        shares = np.repeat(shares, 2, axis=1) if shares.shape[1] == 1 else shares
        draw_curve(panels[0, 3], np.arange(shares.shape[1]), shares, **_look(method, methods))
    panels[0, 3].set(xlabel="steps with gating", ylabel="kept fraction", ylim=(0, 1.05))
    _legend(panels[0, 0], panels[0, 3])
    figure.suptitle(f"Regime {regime['name']}: conditioning along training")
    return figure


def against_fraction(record: Record, regime: Mapping[str, Any]) -> Figure:
    """Accuracy and wall time to the target against the kept fraction."""
    config, name = record["config"], regime["name"]
    dense = (
        record["results"][f"{name}/dense"]["test_accuracy"]
        if "dense" in config["methods"]
        else None
    )
    figure, ((axes, kappa),) = new_figure(1, 2, panel=(5.4, 4.2))
    methods = [m for m in config["methods"] if m not in KEEP_ALL]
    for place, method in enumerate(methods):
        for panel, metric in ((axes, "test_accuracy"), (kappa, "kappa")):
            points = _over_fractions(record, name, method, metric)
            if points:
                fractions, means, errors = zip(*points, strict=True)
                # Shifted a little, or the bars hide each other.
                shifted = np.asarray(fractions) * (1 + 0.012 * (place - (len(methods) - 1) / 2))
                look = method_style(method, methods)
                panel.errorbar(shifted, means, errors, label=method, capsize=2, ms=4, **look)
    if dense is not None and dense["mean"] is not None:
        axes.axhline(dense["mean"], color=INK, lw=1, label="dense")
        spread = dense["mean"] + np.array([-1, 1]) * (dense["stderr"] or 0)
        axes.axhspan(*spread, color=INK, alpha=0.12, lw=0)
    for panel, label in ((axes, "test accuracy"), (kappa, "condition number at the start")):
        panel.set(xscale="log", xlabel="kept fraction of the nodes", ylabel=label)
        fractions = sorted(config["keep"])
        panel.set_xticks(fractions, [f"{f:g}" for f in fractions])
        panel.set_xticks([], minor=True)
    kappa.set_yscale("log")
    _legend(axes, kappa)
    figure.suptitle(f"Regime {name}: accuracy against the kept fraction")
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


def gap_figure(record: Record, regime: Mapping[str, Any]) -> Figure | None:
    """Both gaps against kappa; None where there are too few runs."""
    found = gaps_of(record, regime)
    if len(found.kappa) < FEWEST or len(set(found.methods)) < 3:
        return None
    figure, (panels,) = new_figure(1, 2, panel=(5.4, 3.8))
    order = list(dict.fromkeys(found.methods))
    slow = "steps to the target" if regime["target"] else "training loss above the lowest"
    for axes, values, label in (
        (panels[0], found.convergence, f"convergence gap ({slow})"),
        (panels[1], found.generalisation, "generalisation gap (test less training loss)"),
    ):
        for method in order:
            own = [i for i, name in enumerate(found.methods) if name == method]
            look = _look(method, order) | {"linestyle": ""}
            axes.plot(
                found.kappa[own], values[own], ms=5, alpha=0.8, label=method_of(method), **look
            )
        axes.set(xscale="log", xlabel="condition number at the start", ylabel=label)
        axes.set_title(correlation(found.kappa, values, found.methods).text, fontsize=9)
    _legend_beside(panels[1], panels[1])
    figure.suptitle(f"Regime {regime['name']}: the two gaps against the condition number")
    return figure


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
    return method_style(method, [method_of(name) for name in methods])


def _against_steps(axes: Axes, curves, methods, curve) -> None:
    for method in methods:
        steps = curves[f"{method}/step"]
        values = curves[f"{method}/{curve}"]
        # Seeds that end early stand still: the longest one's steps serve all.
        longest = int(np.argmax(steps[:, -1]))
        draw_curve(axes, steps[longest], values, label=method_of(method), **_look(method, methods))


def _over_fractions(record, regime, method, metric):
    points = []
    for fraction in record["config"]["keep"]:
        own = fraction == record["config"]["own_keep"]
        key = f"{regime}/{method}" + ("" if own else f"@{fraction:g}")
        entry = record["results"].get(key, {}).get(metric)
        if entry and entry["mean"] is not None:
            points.append((fraction, entry["mean"], entry["stderr"] or 0.0))
    return sorted(points)


def _legend(axes: Axes, last: Axes) -> None:
    """In the axes, or beside the last of the row where it would hide their curves."""
    if len(axes.get_legend_handles_labels()[1]) <= 4:
        axes.legend(fontsize=9)
    else:
        _legend_beside(axes, last)


def _legend_beside(axes: Axes, last: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # Fractions of a method look alike.
    last.legend(once.values(), once.keys(), fontsize=9, bbox_to_anchor=(1.02, 1), loc="upper left")
