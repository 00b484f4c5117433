# SPDX-License-Identifier: Apache-2.0
"""The numbers behind a figure, read off what was drawn: nothing is drawn that cannot be had."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection, QuadMesh
from matplotlib.figure import Figure

COLUMNS = ("panel", "series", "x", "y", "value")
Row = tuple[Any, ...]


def drawn_rows(figure: Figure) -> Iterator[Row]:
    """A row of `COLUMNS` per point of every line, band, error bar and coloured cell.

    Rows that the axis calls by a name have that name as `y`. A line across the whole panel has no
    number on the other axis. Contours are left out: they are computed from the curves.
    """
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    for number, axes in enumerate(panels, 1):
        panel = f"{number}: {axes.get_title() or axes.get_ylabel()}".removesuffix(": ")
        rows = _row_names(axes)
        for series, x, y, value in _points(axes):
            yield panel, series, _short(x), rows.get(y, _short(y)), _short(value)


def _points(axes: Axes) -> Iterator[Row]:
    for number, line in enumerate(axes.get_lines(), 1):
        along, up = line.get_transform().contains_branch_seperately(axes.transData)
        for x, y in np.column_stack([np.ravel(data) for data in line.get_data()]):
            yield _name(line, f"line {number}"), x if along else None, y if up else None, None
    for number, drawn in enumerate(axes.collections, 1):
        if isinstance(drawn, QuadMesh):
            yield from _cells(drawn)
        elif isinstance(drawn, (FillBetweenPolyCollection, LineCollection)):
            kind = "end of bar" if isinstance(drawn, LineCollection) else "edge of band"
            for path in drawn.get_paths():  # None at all where every value is missing.
                for x, y in path.vertices:
                    yield _name(drawn, f"{kind} {number}"), x, y, None


def _cells(mesh):
    corners = np.asarray(mesh.get_coordinates())
    centres = (corners[1:, 1:] + corners[1:, :-1] + corners[:-1, 1:] + corners[:-1, :-1]) / 4
    values = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(centres.shape[:2])
    for (x, y), value in zip(centres.reshape(-1, 2), values.ravel(), strict=True):
        yield "cell centre", x, y, value


def _row_names(axes):
    """What stands at the ticks where the axis names its rows instead of numbering them."""
    words = [label.get_text() for label in axes.get_yticklabels()]
    named = zip(map(float, axes.get_yticks()), words, strict=True)
    return {at: word for at, word in named if word[:1].isalpha()}


def _name(artist, otherwise):
    label = str(artist.get_label())
    return otherwise if label.startswith("_") else label


def _short(number):
    """Seven digits: more than can be seen, and what float32 holds."""
    return "" if number is None or not np.isfinite(number) else f"{float(number):.7g}"
