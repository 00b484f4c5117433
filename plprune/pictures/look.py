# SPDX-License-Identifier: Apache-2.0
"""The look of the pictures: one column of a paper, colours that colour-blind readers tell apart."""

import io
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from plprune.extras import optional

WIDTH = 3.4  # Inches: a column.
INK, GREY = "#1f2023", "#9a9a9a"
BLUE, VERMILION, SKY = "#0072b2", "#d55e00", "#56b4e9"  # Of Okabe and Ito.
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def style() -> AbstractContextManager:
    """The settings of matplotlib under which the pictures are drawn, as a context manager.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    return optional("matplotlib").rc_context(_STYLE)


def new_figure(rows: int = 1, columns: int = 1, *, height: float = 2.4) -> tuple[Any, Any]:
    """A figure one column wide and its axes [rows, columns]; call it inside of `style`."""
    figure = _picture()(figsize=(WIDTH, height))
    return figure, figure.subplots(rows, columns, squeeze=False)


@cache
def _picture():
    """The class of the pictures; matplotlib is imported where one is drawn."""

    class Picture(optional("matplotlib.figure").Figure):
        """A Figure that a notebook shows even where no one imported pyplot."""

        def _repr_png_(self):
            with io.BytesIO() as file:
                self.savefig(file, format="png")
                return file.getvalue()

    return Picture


def shown(number: float) -> str:
    """A number with three digits, as a title has it."""
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e5 else f"{number:.3g}"
