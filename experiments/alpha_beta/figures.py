# SPDX-License-Identifier: Apache-2.0
"""Figures and tables of the alpha-beta-condition, from records only."""

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import MaxNLocator

from experiments.alpha_beta.config import POWERS
from experiments.alpha_beta.trends import OPTIMIZERS, ordered, size
from experiments.report.style import COLOURS, INK, draw_curve, looks, new_figure, shades

TITLES = {
    "line": "1: a line of minimisers",
    "two_wells": "2: two minimisers and a saddle",
    "shallow_well": "3: a local minimum",
}
ORDERED = {
    "width": "width of the second layer",
    "channels": "channels of the second layer",
    "batch": "batch size",
    "depth": "layers",
}
SPREAD = 100.0  # Between the smallest and the largest value of a logarithmic axis, at least.
OTHER = "mlp"  # Drawn beside the LSTM.
WIDE = 13.8  # Inches of three panels.


def draw(record, curves):
    """Every figure whose data the record holds."""
    drawn = {}
    if all(f"{name}/surface" in curves for name in TITLES):
        drawn["examples"] = _surfaces(record, curves)
    for prefix, label in ORDERED.items():
        methods = ordered(record["results"], prefix)
        if methods:
            drawn[prefix] = _compared(record, curves, methods, label)
            drawn[f"{prefix}_heat"] = _heat_maps(curves, methods)
    found = [m for m in OPTIMIZERS if m in record["results"]]
    if found:
        drawn["optimizer"] = _compared(record, curves, found, "")
        drawn["optimizer_heat"] = _heat_maps(curves, found)
    for name, figure in RUNS.items():
        if name in record["results"]:
            drawn[name] = figure(curves, name)
    return drawn


def _surfaces(record, curves):
    """Figure 3 of the paper: level lines over the plane."""
    figure, (row,) = new_figure(1, 3, panel=(4.0, 3.4))
    for axes, (name, title) in zip(row, TITLES.items(), strict=True):
        values, points = curves[f"{name}/surface"][0], curves[f"{name}/surface_points"][0]
        side = round(np.sqrt(len(values)))
        x, y = points.reshape(side, side, 2).transpose(2, 0, 1)
        mesh = axes.contourf(x, y, values.reshape(side, side), levels=24, cmap="viridis")
        axes.contour(x, y, values.reshape(side, side), levels=12, colors=INK, linewidths=0.3)
        figure.colorbar(mesh, ax=axes)
        axes.grid(False)
        minimum = record["results"][name]["minimum"]["mean"]
        axes.set(title=f"{title}\n$f^*$ = {minimum:.6g}", xlabel="x", ylabel="y")
    return figure


def _compared(record, curves, methods, label):
    """The smallest pair, the beta for alpha = 2 and the loss of several methods."""
    figure, ((left, middle, right),) = new_figure(1, 3)
    names = [str(size(m)) for m in methods] if label else methods
    where = list(range(len(methods)))
    for metric, look, name in (
        ("smallest_alpha", {"color": COLOURS["blue"], "marker": "o"}, "smallest \u03b1"),
        ("smallest_beta", {"color": COLOURS["vermilion"], "marker": "s"}, "its tightest \u03b2"),
    ):
        _against(left, record, methods, where, metric, label=name, **look)
    _wide(left, record, methods)
    left.set_ylabel("smallest pair with \u03b1 \u2265 \u03b2 + 0.1")
    left.legend()
    _against(middle, record, methods, where, "beta_at_2", color=COLOURS["green"], marker="D")
    middle.set_ylabel("tightest \u03b2 for \u03b1 = 2")
    for axes in (left, middle):
        axes.set_xticks(where, names)
        axes.set_xlabel(label)
        axes.margins(x=0.15)
    for name, method, colour in zip(names, methods, shades(len(methods)), strict=True):
        look = {"color": colour} if label else looks(methods, {})[method]
        _loss(right, curves, method, label=name, **look)
    right.legend(title=label, fontsize=8, title_fontsize=8)
    return figure


def _wide(axes, record, methods):
    """A logarithmic axis where single seeds would otherwise flatten all others."""
    entries = [record["results"][m] for m in methods]
    lists = (e[k]["values"] for e in entries for k in ("smallest_alpha", "smallest_beta"))
    values = [v for line in lists for v in line if v is not None]
    if values and 0 < SPREAD * min(values) < max(values):
        axes.set_yscale("log", nonpositive="clip")


def _against(axes, record, methods, where, metric, *, label=None, **look):
    """Every seed as a dot, and means with standard errors."""
    entries = [record["results"][m][metric] for m in methods]
    for x, entry in zip(where, entries, strict=True):
        values = [v for v in entry["values"] if v is not None]
        axes.plot([x] * len(values), values, ".", color=look["color"], alpha=0.35, ms=5)
    means = [np.nan if e["mean"] is None else e["mean"] for e in entries]
    errors = [e["stderr"] or 0.0 for e in entries]
    axes.errorbar(where, means, errors, capsize=3, label=label, **look)


def _heat_maps(curves, methods):
    """The smallest margin over steps and seeds; a pair works where it is >= 0, above the line."""
    figure, (row,) = new_figure(1, len(methods), panel=(WIDE / max(3, len(methods)), 3.0))
    for axes, method in zip(row, methods, strict=True):
        _heat_map(figure, axes, curves, method)
    return figure


def _heat_map(figure, axes, curves, method):
    axis, heat = curves[f"{method}/heat_axis"][0], curves[f"{method}/heat"].min(0)
    heat = heat.reshape(len(axis), len(axis)).copy()
    alpha, beta = np.meshgrid(axis, axis, indexing="ij")
    heat[alpha < beta + 0.1 - 1e-9] = np.nan
    # Each sign has its own scale: margins where a pair works are often much smaller.
    norm = TwoSlopeNorm(0.0, *_sides(heat))
    mesh = axes.pcolormesh(
        axis, axis, heat.T, cmap="RdBu", norm=norm, shading="nearest", rasterized=True
    )
    if np.nanmin(heat, initial=np.inf) < 0 < np.nanmax(heat, initial=-np.inf):
        axes.contour(axis, axis, heat.T, levels=[0.0], colors=INK, linewidths=1.2)
    axes.grid(False)
    axes.set(xlabel="\u03b1", ylabel="\u03b2", title=method.replace("_", " "))
    bar = figure.colorbar(mesh, ax=axes, ticks=MaxNLocator(5))
    bar.ax.set_yscale("linear")  # In the values, so that the shorter side takes less room.


def _sides(heat):
    """The ends of a colour scale around 0, neither of them empty."""
    low, high = np.nanmin(heat, initial=0.0), np.nanmax(heat, initial=0.0)
    least = 1e-3 * max(high - low, 1e-12)
    return min(low, -least), max(high, least)


def _loss(axes, curves, method, **look):
    draw_curve(axes, curves[f"{method}/steps"][0], curves[f"{method}/loss_curve"], **look)
    axes.set(xlabel="step", ylabel="training loss of a minibatch")


def _run(curves, name):
    """Loss, gradient norm, angle and relaxed PL ratios along one kind of run, and its heat map."""
    figure, ((loss, angle), (ratio, heat)) = new_figure(2, 2)
    steps = curves[f"{name}/steps"][0]
    _loss(loss, curves, name, color=COLOURS["blue"], label="loss")
    gradients = curves[f"{name}/gradient_curve"]
    draw_curve(loss, steps, gradients, color=COLOURS["vermilion"], label="gradient norm")
    loss.set_ylabel("")
    loss.legend()
    draw_curve(angle, steps, curves[f"{name}/angle_curve"], color=COLOURS["green"])
    angle.axhline(0, color=INK, lw=0.8)
    angle.set(xlabel="step", ylabel="cosine(gradient, $x^k - x^K$)")
    _relaxed(ratio, curves, name, steps)
    _heat_map(figure, heat, curves, name)
    heat.set_title("smallest margin over steps and seeds")
    return figure


def _relaxed(axes, curves, name, steps):
    for power, colour in zip(POWERS, ("pink", "orange", "sky"), strict=True):
        look = {"color": COLOURS[colour], "label": f"\u03b4 = {power:g}"}
        draw_curve(axes, steps, curves[f"{name}/pl_{power:g}_curve"], **look)
    if f"{OTHER}/steps" in curves and name == "lstm":
        share = steps[-1] / curves[f"{OTHER}/steps"][0, -1]  # Both runs from end to end.
        look = {"color": COLOURS["sky"], "ls": "--", "label": "MLP, \u03b4 = 2"}
        lines = curves[f"{OTHER}/pl_2_curve"]
        draw_curve(axes, share * curves[f"{OTHER}/steps"][0], lines, **look)
    axes.set(xlabel="step", ylabel="2 log|\u2207f| - (2/\u03b4) log(f - f*)")
    axes.legend()


def _halfspace(curves, name):
    """The whole loss with its gradient and angle, every seed a line; the relaxed PL ratios."""
    figure, ((loss, gradient), (angle, ratio)) = new_figure(2, 2)
    steps = curves[f"{name}/whole_steps"][0]
    for axes, curve, label in (
        (loss, "loss", "loss of all examples"),
        (gradient, "gradient", "norm of its gradient"),
        (angle, "angle", "cosine(its gradient, $x^k - x^K$)"),
    ):
        lines = curves[f"{name}/whole_{curve}_curve"]
        for line, colour in zip(lines, shades(len(lines)), strict=True):
            axes.plot(steps, line, color=colour, lw=1.2)
        axes.set(xlabel="step", ylabel=label)
    gradient.set_yscale("log")
    angle.axhline(0, color=INK, lw=0.8)
    _relaxed(ratio, curves, name, curves[f"{name}/steps"][0])
    return figure


RUNS = {"lstm": _run, "transformer": _run, "halfspace": _halfspace}
