# SPDX-License-Identifier: Apache-2.0
"""The map: cells coloured by how much faster kappa's half is, in one record or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.pl_pruning.atlas.config import OPTIMIZERS, cell_named
from experiments.pl_pruning.atlas.trends import (
    FLOPS,
    Methods,
    Ratio,
    best_other,
    by_cell,
    most_steps,
    ratio,
)
from experiments.report.style import new_figure

Record = Mapping[str, Any]
_MOST = 3.0  # Ratios beyond it have its colour.
_NAMES = {"gd": "GD at 1/L", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "lbfgs": "L-BFGS"}


def draw(record: Record, curves: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    """Both maps of the cells that the record has."""
    del curves
    return _maps(record["config"], by_cell(record["results"]))


def pooled(runs: Sequence[tuple[Record, Mapping[str, np.ndarray]]]) -> dict[str, Figure]:
    """Both maps of all parts that were run alike; of the settings that have most cells."""
    alike: dict[str, tuple[Any, dict[str, Any]]] = {}
    for record, _ in runs:
        config = {name: value for name, value in record["config"].items() if name != "figure"}
        cells = alike.setdefault(str(config), (config, {}))[1]
        cells |= by_cell(record["results"])
    if not alike:
        return {}
    return _maps(*max(alike.values(), key=lambda pair: len(pair[1])))


def _maps(config, cells: Mapping[str, Methods]) -> dict[str, Figure]:
    def best(cell, methods):
        return best_other(methods, most_steps(config, cell))

    def dense(cell, methods):
        return ratio(methods, most_steps(config, cell), "dense", FLOPS)

    if not cells:
        return {}
    return {
        "other halves": _map(cells, best, "steps of the best other half over those of kappa's"),
        "dense": _map(cells, dense, "FLOPs of all nodes over those of kappa's half"),
    }


def _map(cells, ratio_of: Callable[..., Ratio | None], label: str) -> Figure:
    """A row for everything but the optimiser, a column for each optimiser."""
    found = {cell_named(name): ratio_of(name, methods) for name, methods in cells.items()}
    columns = [o for o in OPTIMIZERS if any(cell.optimizer == o for cell in found)]
    rows = list(dict.fromkeys(map(_without_optimizer, found)))
    size = (1.25 * len(columns) + 4.6, 0.36 * len(rows) + 1.6)
    figure, ((axes,),) = new_figure(panel=size)
    norm, colours = LogNorm(1 / _MOST, _MOST), matplotlib.colormaps["RdBu"]
    for cell, one in found.items():
        if one is not None:
            place = columns.index(cell.optimizer), rows.index(_without_optimizer(cell))
            _draw_cell(axes, place, one, colours(norm(np.clip(one.value, 1 / _MOST, _MOST))))
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), [_NAMES.get(name, name) for name in columns])
    axes.set_yticks(range(len(rows)), [_row_words(row) for row in rows], fontsize=9)
    axes.xaxis.tick_top()
    axes.grid(False)
    scale = ScalarMappable(norm, colours)
    bar = figure.colorbar(scale, ax=axes, ticks=[1 / 3, 0.5, 1, 2, 3], shrink=min(1, 4 / size[1]))
    bar.ax.set_yticklabels(["1/3", "1/2", "1", "2", "3"])
    bar.ax.minorticks_off()
    figure.suptitle(f"R: {label}\ngrey: not resolved at 95 %", fontsize=11)
    return figure


def _draw_cell(axes, place, ratio: Ratio, colour) -> None:
    """Its colour, or grey with the number in brackets where the seeds resolve nothing."""
    open_ = ratio.verdict == "not resolved"
    corner = place[0] - 0.48, place[1] - 0.46
    axes.add_patch(Rectangle(corner, 0.96, 0.92, color="0.9" if open_ else colour, lw=0))
    dark = not open_ and abs(np.log(ratio.value)) > np.log(2.2)
    # Cells are light on any page, so that their numbers stay dark.
    axes.text(*place, ratio.text, ha="center", va="center", fontsize=8,
              color="white" if dark else "#202020")  # fmt: skip


def _without_optimizer(cell):
    # The target of gradient descent, ten times as large, is no row of its own.
    goal = cell.target / 10 if cell.optimizer == "gd" else cell.target
    return replace(cell, optimizer="", target=float(f"{goal:.6g}"))


def _row_words(cell) -> str:
    loss = {"cross_entropy": "cross-entropy"}.get(cell.loss, cell.loss)
    parts = [loss, f"depth {cell.depth}"]
    parts += [cell.kind] if cell.kind != "none" else []
    parts += [f"batch {cell.batch}"] if cell.batch else []
    parts += [f"warm-up {cell.warm_up}"] if cell.warm_up else []
    parts += [f"penalty {cell.penalty:g}"] if cell.penalty else []
    parts += ["Fashion-MNIST"] if cell.dataset != "digits" else []
    return ", ".join([*parts, f"to {cell.target:g}"])
