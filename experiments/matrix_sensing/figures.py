# SPDX-License-Identifier: Apache-2.0
"""Figures of matrix sensing, from records only."""

import numpy as np

from experiments.matrix_sensing.words import setting
from experiments.report.style import COLOURS, INK, LINES, draw_curve, new_figure

LOOKS = {
    "regularised": {"color": COLOURS["blue"], "linestyle": "-", "label": "group lasso"},
    "unregularised": {
        "color": COLOURS["vermilion"],
        "linestyle": LINES["dashed"],
        "label": "plain",
    },
}
NETWORK_LOOKS = {"group_lasso": LOOKS["regularised"], "plain": LOOKS["unregularised"]}
TITLES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}


def draw(record, curves):
    """Every figure whose data the record holds."""
    drawn = {}
    for name, needs, figure in DRAWINGS:
        if needs(record, curves):
            drawn[name] = figure(record, curves)
    return drawn


def _columns(record, curves):
    """Figure 1 of the paper: shares of columns above a fraction of the largest, and norms."""
    figure, ((left, right),) = new_figure(1, 2)
    for method, look in LOOKS.items():
        norms = curves[f"{method}/column_norms"]
        fractions = np.linspace(0, 1, 401)
        relative = norms / norms.max(axis=1, keepdims=True)
        shares = (relative[:, None, :] >= fractions[None, :, None]).mean(axis=2)
        draw_curve(left, fractions, shares, **look)
    left.set(
        xlabel="fraction x of the largest norm", ylabel="share with norm \u2265 x \u00b7 largest"
    )
    left.set_yscale("log")
    left.legend()
    _norm_histogram(right, {m: curves[f"{m}/column_norms"] for m in LOOKS}, LOOKS)
    right.axvline(2 * np.sqrt(record["config"]["beta"]), color=INK, lw=1, ls=":")
    right.annotate(
        "threshold", (2 * np.sqrt(record["config"]["beta"]), 0.97), (4, 0), fontsize=9,
        xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
    )  # fmt: skip
    right.set(xlabel="column norm", ylabel="columns (mean over seeds)")
    figure.suptitle(setting(record["config"]), fontsize=11)
    return figure


def _norm_histogram(axes, norms, looks):
    """Histograms on a logarithmic count axis, with the zeros in the first bin."""
    top = max(values.max() for values in norms.values())
    bins = np.linspace(0, 1.02 * top, 41)
    for method, values in norms.items():
        counts = np.mean([np.histogram(v, bins)[0] for v in values], axis=0)
        colour = looks[method]["color"]
        axes.stairs(counts, bins, fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, bins, color=colour, lw=1.2, label=looks[method]["label"])
    axes.set_yscale("log")
    axes.legend(loc="upper right")


def _start(record, curves):
    """The share of large columns against the size of the start."""
    del curves
    found = _regime(record, "start", "large_column_fraction")
    figure, ((axes,),) = new_figure()
    starts = [float(name) for name in found]
    draw_curve(axes, starts, np.array(list(found.values())).T, **LOOKS["unregularised"])
    axes.plot(starts, np.array(list(found.values())).mean(1), "o", color=COLOURS["vermilion"], ms=5)
    share = record["config"]["r"] / record["config"]["k"]
    axes.axhline(share, color=COLOURS["blue"], label="r / k: with group lasso")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.03)
    axes.set(xlabel="column norm at the start", ylabel="share of columns \u2265 half the largest")
    config = record["config"] | {"n": 0}  # Whatever the preset: see `sensing.start`.
    sizes = setting(config, strength=False)
    axes.set_title(f"{sizes}, after {config['plain_steps']:,} steps", fontsize=10)
    axes.legend(loc="upper left")
    return figure


def _finetuning(record, curves):
    """Squared distance to the limit against steps, with the slopes that theory predicts."""
    panels = {
        "regularised": setting(record["config"], strength=False),
        "noisy/regularised": setting(record["config"], grid=True, strength=False),
    }
    figure, (row,) = new_figure(1, 2)
    for axes, (method, title) in zip(row, panels.items(), strict=True):
        distances = curves[f"{method}/finetune_distance"]
        slope = record["results"][method]["finetune_predicted_slope"]["values"][0]
        for i, values in enumerate(distances):
            look = {"color": COLOURS["blue"], "alpha": 0.5, "lw": 1.2}
            shown = values > 1e-27
            axes.plot(np.flatnonzero(shown), values[shown], **look, label="" if i else "each seed")
        steps = np.arange(distances.shape[1])
        line = distances[0, 0] * np.exp(slope * steps)
        shown = line > 1e-27
        axes.plot(steps[shown], line[shown], ":", color=INK, label="predicted slope (first seed)")
        axes.set_yscale("log")
        axes.set_title(title, fontsize=11)
        axes.set(xlabel="fine-tuning step", ylabel="squared distance to the limit")
        axes.legend()
    return figure


def _error(record, curves):
    """Error after fine-tuning against the number of measurements, beside sigma^2 r d / n."""
    del curves
    found = _regime(record, "n", "squared_error_finetuned")
    predicted = _regime(record, "n", "predicted_error")
    figure, ((axes,),) = new_figure()
    sizes = np.array([int(name) for name in found])
    for size, values in zip(sizes, found.values(), strict=True):
        axes.plot([size] * len(values), values, "o", color=COLOURS["blue"], alpha=0.3, ms=4)
    means = [np.mean(v) for v in found.values()]
    axes.plot(sizes, means, "o-", color=COLOURS["blue"], label="pruned and fine-tuned, mean")
    rate = [v[0] for v in predicted.values()]
    axes.plot(sizes, rate, ":", color=INK, label="\u03c3\u00b2rd / n")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=9)
    axes.minorticks_off()
    axes.set(xlabel="measurements n", ylabel="squared error $|UU'-U_*U_*'|_F^2$")
    d, r, sigma = (record["config"][name] for name in ("grid_d", "grid_r", "grid_sigma"))
    axes.set_title(f"d = k = {d}, r = {r}, \u03c3 = {sigma:g}", fontsize=11)
    axes.legend()
    return figure


def _phase(record, curves):
    """Columns above the threshold for each (lambda, beta), and the escape bound."""
    from matplotlib.colors import BoundaryNorm, ListedColormap

    config = record["config"]
    lambdas, betas = curves["phase/lambdas"][0], curves["phase/betas"][0]
    counts = curves["phase/kept_columns_grid"]
    shape = len(np.unique(lambdas)), len(np.unique(betas))
    verdict = np.where(counts == 0, 0, np.where(counts == config["grid_r"], 1, 2))
    verdict = np.median(verdict, axis=0).reshape(shape)
    figure, ((axes,),) = new_figure(panel=(5.6, 3.8))
    colours = ListedColormap([COLOURS["grey"], COLOURS["blue"], COLOURS["orange"]])
    mesh = axes.pcolormesh(
        np.unique(betas), np.unique(lambdas), verdict, cmap=colours, shading="nearest",
        norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3), alpha=0.75, rasterized=True,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    limits = axes.get_xlim(), axes.get_ylim()
    grid = np.geomspace(*limits[0], 50)
    factor = 2 if config["form"] == "rational" else 4
    axes.plot(grid, factor * np.sqrt(grid), color=INK, lw=2)
    axes.annotate(
        "escape bound", (grid[8], factor * np.sqrt(grid[8])), (0, 8), rotation=21,
        textcoords="offset points", color=INK,
    )  # fmt: skip
    axes.plot(config["beta"], config["grid_lam"], "*", color=INK, ms=11)
    axes.annotate(
        "the other grids", (config["beta"], config["grid_lam"]), (8, -12), fontsize=9, color=INK,
        textcoords="offset points",
    )  # fmt: skip
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.grid(False)
    bar = figure.colorbar(mesh, ticks=[0, 1, 2])
    bar.ax.set_yticklabels(["collapse", f"exactly {config['grid_r']}", "too many"])
    axes.set(xlabel="\u03b2", ylabel="\u03bb")
    sizes = "d = k = {grid_d}, r = {grid_r}".format(**config)
    axes.set_title(f"{sizes}, population loss, median over seeds", fontsize=11)
    return figure


def _quadratic(record, curves):
    """Column norms of the quadratic network, and its risk when pruned and fine-tuned."""
    figure, ((left, right),) = new_figure(1, 2)
    norms = {m: curves[f"quadratic/{m}/column_norms"] for m in LOOKS}
    _norm_histogram(left, norms, LOOKS)
    left.set(xlabel="norm of a hidden unit's weights", ylabel="hidden units (mean over seeds)")
    stages = {"risk": "trained", "risk_pruned": "pruned", "risk_finetuned": "fine-tuned"}
    for method, look in LOOKS.items():
        entries = record["results"][f"quadratic/{method}"]
        values = np.array([entries[stage]["values"] for stage in stages], float)
        right.plot(range(3), values, "o", color=look["color"], alpha=0.3, ms=4)
        right.plot(range(3), values.mean(1), marker="o", **look)
    right.set_xticks(range(3), list(stages.values()))
    right.set_yscale("log")
    right.set(xlabel="", ylabel="risk $2|D|_F^2+(\\mathrm{tr}\\,D)^2$")
    right.legend()
    lam = (2 + record["config"]["grid_r"]) * record["config"]["grid_lam"]
    figure.suptitle(setting(record["config"] | {"grid_lam": lam}, grid=True), fontsize=11)
    return figure


def _network(record, curves):
    """Per data set: histogram of node norms, and accuracy against the nodes kept."""
    names = record["config"]["datasets"]
    figure, rows = new_figure(len(names), 2)
    for name, (left, right) in zip(names, rows, strict=True):
        norms = {m: curves[f"{name}/{m}/node_norms"] for m in NETWORK_LOOKS}
        _norm_histogram(left, norms, NETWORK_LOOKS)
        left.set_title(TITLES.get(name, name))
        left.set(xlabel="norm of a node's weights", ylabel="nodes (mean over seeds)")
        for method, look in NETWORK_LOOKS.items():
            _accuracies(right, curves, f"{name}/{method}", look)
        right.set_xscale("log")
        right.set_title(TITLES.get(name, name))
        right.set(xlabel="share of nodes kept, in each layer", ylabel="test accuracy")
        right.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    config = record["config"]
    widths = "-".join(str(width) for width in config["widths"])
    figure.suptitle(
        f"MLP {widths}, \u03bb = {config['network_lam']:g}, \u03b2 = {config['network_beta']:g}",
        fontsize=11,
    )
    return figure


def _accuracies(axes, curves, key, look):
    sizes = curves[f"{key}/sizes"][0]
    solid = look | {"linestyle": "-", "label": f"{look['label']}, pruned"}
    dotted = look | {"linestyle": LINES["dotted"], "label": f"{look['label']}, fine-tuned"}
    draw_curve(axes, sizes, curves[f"{key}/accuracy_pruned"], **solid)
    draw_curve(axes, sizes, curves[f"{key}/accuracy_finetuned"], **dotted)


def _regime(record, regime, metric):
    """Method -> the metric's value of each seed, for the methods of one regime."""
    found = {}
    for method, entries in record["results"].items():
        head, _, name = method.rpartition("/")
        if head == regime and metric in entries:
            found[name] = entries[metric]["values"]
    return found


DRAWINGS = (
    ("columns", lambda _, c: "regularised/column_norms" in c, _columns),
    ("start", lambda r, _: _regime(r, "start", "large_column_fraction"), _start),
    ("finetuning", lambda _, c: "regularised/finetune_distance" in c, _finetuning),
    ("error", lambda r, _: _regime(r, "n", "squared_error_finetuned"), _error),
    ("phase", lambda _, c: "phase/lambdas" in c, _phase),
    ("quadratic", lambda _, c: "quadratic/regularised/column_norms" in c, _quadratic),
    ("network", lambda _, c: any(key.endswith("/node_norms") for key in c), _network),
)
