# SPDX-License-Identifier: Apache-2.0
"""The figures of a pl_pruning record, drawn from the record alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.pl_pruning.figures import gaps, regime
from experiments.pl_pruning.methods import KEEP_ALL

Curves = Mapping[str, np.ndarray]


def draw(record: Mapping[str, Any], curves: Curves) -> dict[str, Figure]:
    """Figures per regime; those that the record has no numbers for are left out."""
    config, drawn = record["config"], {}
    for own in config["regimes"]:
        name = own["name"]
        drawn[name] = regime.overview(record, curves, own)
        drawn[f"{name} in time"] = regime.in_time(record, curves, own)
        if config["track"]:
            drawn[f"{name} conditioning"] = regime.conditioning(record, curves, own)
        if len(config["keep"]) > 1:
            drawn[f"{name} fractions"] = regime.against_fraction(record, own)
        if set(config["methods"]) - set(KEEP_ALL):
            drawn[f"{name} nodes"] = regime.kept_nodes(record, curves, own)
        figure = gaps.gap_figure([(record, curves)], own, f"Regime {name}")
        if figure is not None:
            drawn[f"{name} gaps"] = figure
    return drawn


def pooled(runs: Sequence[tuple[Mapping[str, Any], Curves]]) -> dict[str, Figure]:
    """The gaps of records that share a regime: over widths, as of a sweep, and all the rest."""
    drawn = {}
    for own, alike in gaps.poolable(runs):
        name = f"{alike[0][0]['config']['dataset']}, regime {own['name']}"
        figure = gaps.gap_figure(alike, own, f"{name}, {len(alike)} records")
        if figure is not None:
            again = sum(other.startswith(name) for other in drawn)
            drawn[f"{name} {again + 1}" if again else name] = figure
    return drawn
