"""Figures and tables of the alpha-beta-condition, from records only."""

import numpy as np

from experiments.alpha_beta.tables import METRICS, tables
from experiments.figures import COLOURS, INK, draw_curve, method_style, new_figure, shades

__all__ = ["METRICS", "draw", "tables"]
TITLES = {
    "line": "1: a line of minimisers",
    "two_wells": "2: two minimisers and a saddle",
    "shallow_well": "3: a local minimum",
}
ORDERED = {
    "width": "width of the second layer",
    "channels": "channels of the second layer",
    "batch": "batch size",
}
RUNS = ("halfspace", "lstm", "transformer")
OPTIMIZERS = ("adam", "momentum", "sgd")


def draw(record, curves):
    """Every figure whose data the record holds."""
    drawn = {}
    if all(f"{name}/surface" in curves for name in TITLES):
        drawn["examples"] = _surfaces(record, curves)
    for prefix, label in ORDERED.items():
        methods = [m for m in record["results"] if m.rpartition("_")[0] == prefix]
        if methods:
            drawn[prefix] = _ordered(record, curves, prefix, methods, label)
    found = [m for m in OPTIMIZERS if m in record["results"]]
    if found:
        drawn["optimizer"] = _optimizers(record, curves, found)
    for name in RUNS:
        if name in record["results"]:
            drawn[name] = _run(record, curves, name)
    return drawn


def _surfaces(record, curves):
    """Figure 3 of the paper: level lines, with the smallest sampled value marked."""
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


def _ordered(record, curves, prefix, methods, label):
    """The smallest pair against the ordered setting, one heat map, and the loss curves."""
    figure, ((left, middle, right),) = new_figure(1, 3)
    methods = sorted(methods, key=_size)
    _pairs(left, record, methods, [_size(m) for m in methods])
    left.set_xscale("log", base=2)
    left.set_xlabel(label)
    name = methods[len(methods) // 2]
    _heat_map(figure, middle, curves, name, f"{prefix} {_size(name)}")
    for method, colour in zip(methods, shades(len(methods)), strict=True):
        _loss(right, curves, method, color=colour, label=f"{_size(method)}")
    right.legend(title=label, fontsize=8, title_fontsize=8)
    return figure


def _size(method):
    return int(method.rpartition("_")[2])


def _pairs(axes, record, methods, where):
    for metric, colour, marker in (
        ("smallest_alpha", COLOURS[0], "o"),
        ("smallest_beta", COLOURS[1], "s"),
    ):
        entries = [record["results"][m][metric] for m in methods]
        for x, entry in zip(where, entries, strict=True):
            values = [v for v in entry["values"] if v is not None]
            axes.plot([x] * len(values), values, ".", color=colour, alpha=0.35, ms=5)
        means = [np.nan if e["mean"] is None else e["mean"] for e in entries]
        errors = [e["stderr"] or 0.0 for e in entries]
        label = {"smallest_alpha": "\u03b1", "smallest_beta": "\u03b2 = tightest for it"}[metric]
        axes.errorbar(where, means, errors, color=colour, marker=marker, capsize=3, label=label)
    axes.set_ylabel("smallest pair with \u03b1 \u2265 \u03b2 + 0.1")
    axes.legend()


def _heat_map(figure, axes, curves, method, title):
    """The smallest margin over the steps of the first seed; a pair works where it is >= 0."""
    if f"{method}/heat" not in curves:
        axes.set_axis_off()
        return
    axis, heat = curves[f"{method}/heat_axis"][0], curves[f"{method}/heat"][0]
    heat = heat.reshape(len(axis), len(axis)).copy()
    alpha, beta = np.meshgrid(axis, axis, indexing="ij")
    heat[alpha < beta + 0.1] = np.nan
    limit = np.nanmax(np.abs(heat)) if np.isfinite(heat).any() else 1.0
    mesh = axes.pcolormesh(
        axis, axis, heat.T, cmap="RdBu", vmin=-limit, vmax=limit, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    if np.nanmin(heat, initial=np.inf) < 0 < np.nanmax(heat, initial=-np.inf):
        axes.contour(axis, axis, heat.T, levels=[0.0], colors=INK, linewidths=1.2)
    axes.grid(False)
    axes.set(xlabel="\u03b1", ylabel="\u03b2", title=f"smallest margin: {title}, first seed")
    figure.colorbar(mesh, ax=axes)


def _loss(axes, curves, method, **look):
    draw_curve(axes, curves[f"{method}/steps"][0], curves[f"{method}/loss_curve"], **look)
    axes.set(xlabel="step", ylabel="training loss")


def _optimizers(record, curves, methods):
    """The smallest pair of each optimiser, a heat map, and the loss curves."""
    figure, ((left, middle, right),) = new_figure(1, 3)
    _pairs(left, record, methods, range(len(methods)))
    left.set_xticks(range(len(methods)), methods)
    _heat_map(figure, middle, curves, methods[-1], methods[-1])
    for method in methods:
        _loss(right, curves, method, label=method, **method_style(method, methods))
    right.legend()
    return figure


def _run(record, curves, name):
    """Loss, gradient norm, angle and PL ratio along one kind of run, and its heat map."""
    figure, ((loss, angle), (ratio, heat)) = new_figure(2, 2)
    steps = curves[f"{name}/steps"][0]
    _loss(loss, curves, name, color=COLOURS[0], label="loss")
    gradients = curves[f"{name}/gradient_curve"]
    draw_curve(loss, steps, gradients, color=COLOURS[1], label="gradient norm")
    loss.set_ylabel("")
    loss.legend()
    draw_curve(angle, steps, curves[f"{name}/angle_curve"], color=COLOURS[2])
    angle.axhline(0, color=INK, lw=0.8)
    angle.set(xlabel="step", ylabel="cosine(gradient, $x^k - x^K$)")
    draw_curve(ratio, steps, curves[f"{name}/pl_curve"], color=COLOURS[3])
    ratio.set_yscale("log")
    ratio.set(xlabel="step", ylabel="|gradient|\u00b2 / 2 loss")
    _heat_map(figure, heat, curves, name, name)
    del record
    return figure
