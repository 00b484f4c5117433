# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.matrix_sensing.config` for what they show."""

import importlib

from experiments.matrix_sensing.config import Config
from experiments.progress import Progress
from experiments.results import Curves, Results, collected, notes_on

MODULES = {
    "columns": "sensing",
    "start": "sensing",
    "finetuning": "sensing",
    "error": "grids",
    "phase": "grids",
    "quadratic": "grids",
    "network": "network",
}


def run(config: Config, figure: str, *, progress: Progress) -> tuple[Results, Curves]:
    """Metrics per method and seed, and curves, of one figure."""
    module = importlib.import_module(f"experiments.matrix_sensing.{MODULES[figure]}")
    return collected(getattr(module, figure)(config, progress))


def versions(config: Config, figure: str | None = None) -> dict[str, str]:
    """Notes on the classifiers' data, where a copy is not stored losslessly."""
    return notes_on(config.datasets if figure in {None, "network"} else ())
