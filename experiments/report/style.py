# SPDX-License-Identifier: Apache-2.0
"""The look that all figures share, and what their captions say.

Draw inside of ``with style():`` (the report does). Colours are those of Okabe and Ito, told apart
by colour-blind readers too. What must stand out from any background is drawn in `INK`, which
becomes the text's own colour on a page.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

INK = "#1f2023"
COLOURS = {
    "ink": INK,
    "blue": "#0072b2",
    "vermilion": "#d55e00",
    "green": "#009e73",
    "pink": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "purple": "#8c6bb1",
    "grey": "#7f7f7f",
}
LINES = {
    "solid": "-",
    "dashed": (0, (5, 2)),
    "dotted": (0, (1, 1.3)),
    "dashdotted": (0, (6, 2, 1, 2)),
    "dashdotdotted": (0, (6, 2, 1, 2, 1, 2)),
}
Look = tuple[str, str, str]  # A key of `COLOURS`, one of `LINES`, and a marker of matplotlib.
SPARE: tuple[Look, ...] = (
    ("blue", "dashed", "s"), ("vermilion", "dotted", "D"), ("green", "dashdotted", "^"),
    ("pink", "solid", "v"), ("orange", "dashed", "P"), ("sky", "dotted", "X"),
    ("purple", "dashdotted", "*"), ("grey", "solid", "o"),
)  # fmt: skip
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#808080",
}


def style() -> AbstractContextManager:
    """The settings of matplotlib under which figures are drawn."""
    return matplotlib.rc_context(STYLE)


def new_figure(rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = (4.6, 3.4)):
    """A figure and its axes [rows, columns], each of `panel` inches; no global state."""
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows))
    return figure, figure.subplots(rows, columns, squeeze=False)


def looks(names: Iterable[str], known: Mapping[str, Look]) -> dict[str, dict[str, Any]]:
    """Name -> colour, line and marker: its own look where it has one, else a spare one in turn."""
    others = [name for name in dict.fromkeys(names) if name not in known]
    found = dict(zip(others, itertools.cycle(SPARE), strict=False)) | dict(known)
    return {
        name: {"color": COLOURS[colour], "linestyle": LINES[line], "marker": marker}
        for name, (colour, line, marker) in found.items()
    }


def shades(count: int) -> list[tuple[float, ...]]:
    """Colours in order, dark to light, for ordered values such as widths; seen on any page."""
    return [tuple(c) for c in matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, count))]


def draw_curve(axes: Axes, steps, values, **look) -> None:
    """Mean over the seeds with a band of one standard error.

    Args:
      axes: To draw on.
      steps: [step].
      values: [seed, step]; NaN where a seed has no value, and then that step is left out.
      **look: Colour, line, label, ... as `looks` gives; a marker is ignored.
    """
    look.pop("marker", None)
    values = np.asarray(values, float)
    mean = values.mean(0)
    axes.plot(steps, mean, **look)
    if len(values) > 1:
        error = values.std(0, ddof=1) / np.sqrt(len(values))
        axes.fill_between(
            steps, mean - error, mean + error, color=look.get("color"), alpha=0.2, linewidth=0
        )


def legend_beside(axes: Axes, last: Axes) -> None:
    """The legend of `axes` beside `last`, the last axes of its row."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # Fractions of a method look alike.
    last.legend(once.values(), once.keys(), fontsize=9, bbox_to_anchor=(1.02, 1), loc="upper left")


def legend_height(entries: int, least: float) -> float:
    """Inches, at least `least`, of axes that a legend of so many entries fits beside."""
    return max(least, 1 + 0.22 * entries)


def tidy(figure: Figure) -> None:
    """Give short logarithmic axes round ticks in plain numbers, which do not collide.

    Ticks that were set by hand stay.
    """
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            chosen = isinstance(axis.get_major_locator(), FixedLocator)
            if axis.get_scale() == "log" and high < 50 * low and not chosen:
                axis.set_major_locator(_log_ticks(low, high))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
                axis.set_minor_formatter(NullFormatter())


def _log_ticks(low, high):
    """The sparsest round ticks that show at least two numbers between the limits."""
    for digits in ((1, 2, 5), (1, 2, 3, 4, 6, 8)):
        ticks = np.outer(digits, 10.0 ** np.arange(-20, 20))
        if np.sum((ticks >= low) & (ticks <= high)) >= 2:
            return LogLocator(subs=digits)
    return MaxNLocator(4, steps=[1, 2, 5, 10])


def caption(*records: Mapping[str, Any]) -> str:
    """What figures of some runs say of themselves: commands, seeds, scales, and lossy data."""
    commands = list(dict.fromkeys(record["command"] for record in records))
    more = f"; and {len(commands) - 4} more" if len(commands) > 4 else ""
    parts = [f"{'; '.join(commands[:4])}{more}."]
    if len(records) == 1:
        seeds = records[0]["seeds"]
        errors = (
            f"Seeds {seeds[0]} to {seeds[-1]}; bands and bars are one standard error of the mean."
        )
        parts.append(errors if len(seeds) > 1 else f"Seed {seeds[0]}.")
    parts += [str(record["config"].get("scale", "")) for record in records]
    parts += [line for record in records for line in lossy(record)]
    return " ".join(filter(None, dict.fromkeys(parts)))


def lossy(record: Mapping[str, Any]) -> list[str]:
    """A sentence for each data set of the record that was not stored losslessly."""
    return [
        f"Data: {name} {version.rstrip('. ')}."
        for name, version in record["versions"].items()
        if re.search("lossy|lossless|re-encod", version)
    ]
