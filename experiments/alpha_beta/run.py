# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.alpha_beta.config` for what they show."""

import importlib

import numpy as np

from experiments.alpha_beta.config import Config
from experiments.progress import Progress

ANALYTIC = {"examples": "analytic", "halfspace": "halfspace"}
TRAINED = {
    "width": "networks",
    "channels": "networks",
    "batch_size": "resnets",
    "optimizer": "resnets",
    "depth": "resnets",
    "lstm": "language",
    "transformer": "language",
}
Results = dict[str, dict[str, list[float | None]]]


def run(
    config: Config, figure: str, *, progress: Progress
) -> tuple[Results, dict[str, np.ndarray]]:
    """Metrics per method and seed, and curves, of one figure."""
    if figure in ANALYTIC:
        module = importlib.import_module(f"experiments.alpha_beta.{ANALYTIC[figure]}")
        return collected(getattr(module, figure)(config, progress))
    from experiments.alpha_beta.training import runs

    return collected(runs(config, progress, settings(config, figure)))


def settings(config: Config, figure: str, data=None):
    """Method -> function that gives its `Training`, for a figure of trained networks.

    Args:
      config: Sizes.
      figure: A key of `TRAINED`.
      data: ((inputs, labels), classes); loaded if None. Shapes will do to trace a run.
    """
    module = importlib.import_module(f"experiments.alpha_beta.{TRAINED[figure]}")
    loaded = module.data(config, figure) if data is None else data
    return getattr(module, figure)(config, loaded)


def versions(config: Config) -> dict[str, str]:
    """Notes on data that are not stored losslessly."""
    from plprune.data import load

    found = {}
    for name in sorted({config.dataset, config.images} - {"digits"}):
        try:
            data = load(name, split="train[:1]")
        except FileNotFoundError:
            continue  # A figure that needs it will say so.
        if data.notes:
            found[data.title] = data.notes
    return found


def collected(per_seed: dict[str, list[dict[str, np.ndarray]]]):
    """Numbers become results and arrays become curves; methods map to one dictionary per seed."""
    results, curves = {}, {}
    for method, runs in per_seed.items():
        for name, first in runs[0].items():
            values = [np.asarray(found[name]) for found in runs]
            if np.ndim(first) == 0:
                numbers = [float(v) if np.isfinite(v) else None for v in values]
                results.setdefault(method, {})[name] = numbers
            else:
                curves[f"{method}/{name}"] = np.stack(values)
    return results, curves
