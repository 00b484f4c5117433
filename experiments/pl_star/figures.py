# SPDX-License-Identifier: Apache-2.0
"""Figures of the PL* experiments, from records only."""

import numpy as np

from experiments.report.style import COLOURS, INK, LINES, draw_curve, new_figure, shades

WIDTH_LOOKS = {
    "linear_output": (COLOURS["blue"], "-", "linear output, weights \u00b11"),
    "gaussian_output": (COLOURS["green"], LINES["dashed"], "linear output, Gaussian weights"),
    "nonlinear_output": (COLOURS["vermilion"], LINES["dotted"], "tanh output, weights \u00b11"),
    "standard_parameterization": (
        COLOURS["purple"],
        LINES["dashdotted"],
        "standard parameterisation",
    ),
}
MODEL_LOOKS = {
    "gaussian": (INK, "-", "Gaussian, n = 10"),
    "mlp": (COLOURS["blue"], LINES["dashed"], "MLP"),
    "cnn": (COLOURS["vermilion"], LINES["dotted"], "CNN"),
    "resnet": (COLOURS["green"], LINES["dashdotted"], "ResNet"),
}
RATES = {"bound": {"color": INK, "linestyle": ":"}, "measured": {"color": COLOURS["blue"]}}


def draw(record, curves):
    """Every figure whose data the record holds."""
    return {
        name: figure(record, curves)
        for name, ending, figure in DRAWINGS
        if any(key.endswith(ending) for key in curves)
    }


def _surface(record, curves):
    """Loss surfaces of two parameters on a logarithmic scale, with the ends of descent."""
    figure, (row,) = new_figure(1, 2)
    titles = {"overparameterised": "n = 1 < m = 2", "underparameterised": "n = 6 > m = 2"}
    size = record["config"]["grid"]
    line = np.linspace(-2.5, 2.5, size)
    for axes, (name, title) in zip(row, titles.items(), strict=True):
        losses = curves[f"{name}/loss_surface"][0].reshape(size, size)
        levels = np.linspace(-4, 1.5, 12)
        drawn = axes.contourf(
            line, line, np.log10(losses + 1e-4).T, levels, cmap="cividis", extend="both"
        )
        ends = curves[f"{name}/ends"][0].reshape(-1, 2)
        axes.plot(*ends.T, "o", color=COLOURS["vermilion"], ms=4, label="ends of gradient descent")
        axes.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), title=f"{title}, first seed")
        axes.set(xlabel="$w_0$", ylabel="$w_1$")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center")
    figure.colorbar(drawn, ax=list(row), label="$\\log_{10}$ of the loss (sum)")
    return figure


def _width(record, curves):
    """|H_F| at initialisation, and the change of the kernel by training."""
    figure, ((left, right),) = new_figure(1, 2)
    widths = record["config"]["hessian_widths"]
    for name, (colour, line, label) in WIDTH_LOOKS.items():
        slope = record["results"][name]["hessian_norm_slope"]["mean"]
        look = {"color": colour, "linestyle": line, "label": f"{label}: slope {slope:.2f}"}
        draw_curve(left, widths, curves[f"{name}/hessian_norms"], **look)
    _log(left, "hidden units", "$|H_F|$ at initialisation")
    sizes = curves["linear_output/parameters_per_width"][0]
    n = record["config"]["hessian_examples"]
    left.set_title(f"n = {n}, m = {sizes[0]:,} to {sizes[-1]:,}", fontsize=11)
    left.set_ylim(None, 40 * left.get_ylim()[1])  # Room for the legend.
    left.legend(fontsize=8, loc="upper left")
    widths = sorted(record["config"]["widths"])
    slope = record["results"]["descent"]["kernel_change_slope"]["mean"]
    look = {"color": COLOURS["blue"], "label": f"slope {slope:.2f}"}
    draw_curve(right, widths, curves["descent/kernel_change"], **look)
    _log(right, "hidden units", "$|K - K_0| / |K_0|$ after training")
    right.set_title(f"n = {_run(record)}", fontsize=11)
    right.legend()
    return figure


def _eigenvalue(record, curves):
    """lambda_min(K) along gradient descent, and the lower bounds that certificates give."""
    widths = sorted(record["config"]["widths"])
    figure, (row,) = new_figure(1, len(widths), panel=(3.4, 3.2))
    for axes, width in zip(row, widths, strict=True):
        method = f"width_{width}"
        steps = np.arange(curves[f"{method}/lambda_min"].shape[1]) + 1
        names = ("lambda_min", "sharp_bound", "bound")
        labels = ("$\\lambda_{min}(K)$", "bound by $DF$", "bound by $K$")
        for name, colour, line, label in zip(
            names, shades(3), ("-", "--", ":"), labels, strict=True
        ):
            look = {"color": colour, "linestyle": line, "label": label}
            draw_curve(axes, steps, curves[f"{method}/{name}"], **look)
        entry = record["results"][method]
        m, end = entry["parameters"]["mean"], entry["distance"]["mean"]
        # Loose at these widths: the bounds end long before the run does.
        told = f"bounds reach {entry['certified_distance']['mean']:.2g} of a distance of {end:.2g}"
        axes.annotate(told, (0.97, 0.1), xycoords="axes fraction", ha="right", fontsize=8)
        axes.set(xscale="log", title=f"{width} units, m = {m:,.0f}", ylim=(0, None))
        axes.set(xlabel="step + 1", ylabel="eigenvalue")
    row[0].legend(fontsize=8, loc="center right")
    figure.suptitle(f"n = {_run(record)}, K not normalised", fontsize=11)
    return figure


def _rate(record, curves):
    """Loss against its bound, for gradient descent and for two batch sizes."""
    sizes = record["config"]["batch_sizes"]
    panels = {"gd": "gradient descent, \u03b7 = 1/\u03b2"}
    panels |= {f"sgd_{s}": f"batches of {s}, mean" for s in sorted({sizes[0], sizes[-1]})}
    figure, (row,) = new_figure(1, len(panels), panel=(3.6, 3.2))
    for axes, (method, title) in zip(row, panels.items(), strict=True):
        steps = np.arange(curves[f"{method}/loss"].shape[1])
        # In units of its first value, so that each seed's loss is seen beside its own bound.
        first = curves[f"{method}/loss"][:, :1]
        for name, line in (("loss", "measured"), ("bound", "bound")):
            draw_curve(axes, steps, curves[f"{method}/{name}"] / first, label=name, **RATES[line])
        axes.set(yscale="log", title=title, xlabel="step", ylabel="loss / first loss")
    row[0].legend()
    figure.suptitle(_run_of(record, "gd"), fontsize=11)
    return figure


def _radius(record, curves):
    """Length of the path and distance from the start, below the three radii."""
    figure, ((axes,),) = new_figure(panel=(5.4, 3.6))
    steps = np.arange(curves["gd/path_lengths"].shape[1])
    draw_curve(axes, steps, curves["gd/path_lengths"], color=COLOURS["blue"], label="path length")
    look = {"color": COLOURS["green"], "linestyle": LINES["dashed"], "label": "distance"}
    draw_curve(axes, steps, curves["gd/distances"], **look)
    metrics = ("path_radius", "square_loss_radius", "smooth_radius")
    labels = ("$2\\sqrt{2L_0/\\mu}$", "$2L_F|r_0|/\\mu$", "$2\\sqrt{2\\beta L_0}/\\mu$")
    for metric, line, label in zip(metrics, (":", "--", "-."), labels, strict=True):
        radius = record["results"]["gd"][metric]["mean"]
        if radius is not None:
            axes.axhline(radius, color=INK, ls=line, lw=1.2, label=f"{label} = {radius:.0f}")
    axes.set_yscale("log")
    axes.set_ylim(0.01, None)
    axes.set_title(_run_of(record, "radius"), fontsize=10)
    axes.set(xlabel="step", ylabel="distance in parameters")
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _run(record):
    """Examples and parameterisation of gradient descent."""
    name = {"ntk": "NTK", "standard": "standard"}[record["config"]["parameterization"]]
    return f"{record['config']['examples']}, {name} parameterisation"


def _run_of(record, method):
    """Sizes of the run that two figures show."""
    width, m = record["config"]["widths"][-1], record["results"][method]["parameters"]["mean"]
    return f"n = {_run(record)}, {width} hidden units, m = {m:,.0f}, sum loss"


def _nonconvex(record, curves):
    """Most negative Hessian eigenvalue of the loss against the residual beside a solution."""
    entry = record["results"]["nonconvex"]
    figure, ((axes,),) = new_figure(panel=(5.4, 3.6))
    deltas = curves["nonconvex/deltas"][0]
    for sign, colour, line in (
        ("plus", COLOURS["blue"], "-"),
        ("minus", COLOURS["vermilion"], "--"),
    ):
        values = -curves[f"nonconvex/lowest_{sign}"]
        look = {"color": colour, "linestyle": line}
        label = f"residual {'+' if sign == 'plus' else '-'}\u03b4 on one output"
        draw_curve(axes, deltas, np.where(values > 0, values, np.nan), label=label, **look)
    rank, m = entry["hessian_rank"]["mean"], entry["parameters"]["mean"]
    n = record["config"]["solution_examples"]
    axes.set_title(f"n = {n}, m = {m:.0f}, rank of $H_{{F_1}}$ = {rank:.0f} > 2n", fontsize=11)
    _log(axes, "\u03b4", "$-\\lambda_{min}$ of the loss's Hessian")
    axes.legend()
    return figure


def _jacobian(record, curves):
    """Conditioning against parameters per output: random matrices beside random networks."""
    figure, ((axes,),) = new_figure(panel=(5.8, 3.8))
    for name, (colour, line, label) in MODEL_LOOKS.items():
        if f"{name}/log_kappa" not in curves:
            continue
        ratios = curves[f"{name}/parameters_per_output"][0]
        values, style = curves[f"{name}/log_kappa"], {"color": colour, "linestyle": line}
        draw_curve(axes, ratios, values, label=label, **style)
        axes.plot(ratios, values.mean(0), "o", color=colour, ms=3)
    n = 10
    m = np.arange(n, 101)
    axes.plot(m / n, 2 * np.log(m / (m - n + 1)) + 5, ":", color=COLOURS["grey"], label="its bound")
    axes.axvline(1, color=INK, lw=0.8)
    axes.set_xscale("log")
    axes.set_title(_networks(record), fontsize=10)
    axes.set(xlabel="independent parameters per output", ylabel="mean log \u03ba")
    axes.legend(fontsize=8)
    return figure


def _networks(record):
    """Sizes of the networks, as far as the record has them."""
    parts = [f"MLP and CNN: n = {record['config']['model_examples']}"]
    if "resnet" in record["results"]:
        found = record["results"]["resnet"]
        m, rank = (found[k]["mean"] for k in ("parameters", "independent_parameters"))
        parts.append(f"ResNet: m = {m:.0f}, of which {rank:.0f} independent")
    return "; ".join(parts)


def _almost(record, curves):
    """Loss and PL ratio with fewer parameters than examples, and the stopping times."""
    figure, ((left, right),) = new_figure(1, 2)
    config, results = record["config"], record["results"]
    steps = np.arange(curves["almost/loss"].shape[1]) + 1
    draw_curve(left, steps, curves["almost/loss"], color=COLOURS["blue"], label="loss")
    look = {"color": COLOURS["vermilion"], "linestyle": LINES["dashed"], "label": "PL ratio"}
    draw_curve(left, steps, curves["almost/pl_ratio"], **look)
    m = results["almost"]["parameters"]["mean"]
    left.set_title(f"n = {config['almost_examples']} > m = {m:.0f}: $\\lambda_{{min}}(K) = 0$")
    _log(left, "step + 1", "loss (sum), ratio")
    left.legend()
    for metric, marker, colour in (
        ("stopping_bound", "s", INK),
        ("stopping_time", "o", COLOURS["blue"]),
    ):
        for fraction in config["fractions"]:
            values = results[f"eps_{fraction:g}"][metric]["values"]
            shown = [v for v in values if v is not None]
            label = metric.replace("_", " ") if fraction == config["fractions"][0] else None
            right.plot([fraction] * len(shown), shown, marker, color=colour, ms=5, label=label)
    right.set_yscale("log")
    right.set(xlabel="threshold \u03b5 / first loss", ylabel="steps")
    right.legend()
    return figure


def _log(axes, x, y):
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)


DRAWINGS = (
    ("surface", "overparameterised/loss_surface", _surface),
    ("width", "linear_output/hessian_norms", _width),
    ("eigenvalue", "/sharp_bound", _eigenvalue),
    ("rate", "gd/bound", _rate),
    ("radius", "gd/path_lengths", _radius),
    ("nonconvex", "nonconvex/deltas", _nonconvex),
    ("jacobian", "gaussian/log_kappa", _jacobian),
    ("almost", "almost/loss", _almost),
)
