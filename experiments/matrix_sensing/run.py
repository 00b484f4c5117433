# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.matrix_sensing.config` for what they show."""

import importlib

import numpy as np

from experiments.matrix_sensing.config import Config
from experiments.progress import Progress

MODULES = {
    "columns": "sensing",
    "start": "sensing",
    "finetuning": "sensing",
    "error": "grids",
    "phase": "grids",
    "quadratic": "grids",
    "network": "network",
}
Results = dict[str, dict[str, list[float | None]]]


def run(
    config: Config, figure: str, *, progress: Progress
) -> tuple[Results, dict[str, np.ndarray]]:
    """Metrics per method and seed, and curves, of one figure."""
    module = importlib.import_module(f"experiments.matrix_sensing.{MODULES[figure]}")
    return collected(getattr(module, figure)(config, progress))


def versions(config: Config) -> dict[str, str]:
    """Notes on the classifiers' data, where a copy is not stored losslessly."""
    from plprune.data import load

    found = {}
    for name in config.datasets:
        try:
            data = load(name, split="train[:1]")
        except FileNotFoundError:
            continue  # The figure that needs it will say so.
        if data.notes:
            found[data.title] = data.notes
    return found


def collected(per_seed: dict[str, list[dict[str, np.ndarray]]]):
    """Numbers become results and arrays become curves; methods map to one dictionary per seed."""
    results, curves = {}, {}
    for method, runs in per_seed.items():
        for name, first in runs[0].items():
            values = [found[name] for found in runs]
            if np.ndim(first) == 0:
                numbers = [float(v) if np.isfinite(v) else None for v in values]
                results.setdefault(method, {})[name] = numbers
            else:
                curves[f"{method}/{name}"] = np.stack(values)
    return results, curves
