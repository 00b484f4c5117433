# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.pl_star.config` for what they show."""

import importlib
from collections.abc import Callable

import jax
import numpy as np

from experiments.pl_star.config import Config
from experiments.progress import Progress

MODULES = {
    "surface": "landscapes",
    "width": "widths",
    "eigenvalue": "descent",
    "rate": "stochastic",
    "radius": "descent",
    "nonconvex": "landscapes",
    "jacobian": "jacobians",
    "almost": "descent",
}
Results = dict[str, dict[str, list[float | None]]]


def run(
    config: Config, figure: str, *, progress: Progress
) -> tuple[Results, dict[str, np.ndarray]]:
    """Metrics per method and seed, and curves, of one figure.

    A figure is a function ``(config, seed) -> {"method/metric": number or array}``.
    """
    work = getattr(importlib.import_module(f"experiments.pl_star.{MODULES[figure]}"), figure)
    return collected(_per_seed(config, progress, figure, work))


def versions(config: Config, figure: str | None = None) -> dict[str, str]:
    """What the data set calls itself, which says so where a copy is lossy."""
    from plprune.data import load

    del figure
    return {"data": load(config.dataset, split="train[:1]").title}


def _per_seed(config, progress, name, work: Callable):
    found = []
    # The smallest eigenvalues need float64.
    with progress.task(name, total=config.seeds) as task, jax.enable_x64(True):
        for seed in range(config.seed, config.seed + config.seeds):
            found.append(progress.once(f"{name}/{seed}", lambda s=seed: work(config, s)))
            task.advance(1)
    return found


def collected(runs: list[dict[str, np.ndarray]]):
    """Numbers become results and arrays become curves."""
    results, curves = {}, {}
    for key, first in runs[0].items():
        method, _, metric = key.rpartition("/")
        values = [found[key] for found in runs]
        if np.ndim(first) == 0:
            numbers = [float(v) if np.isfinite(v) else None for v in values]
            results.setdefault(method, {})[metric] = numbers
        else:
            curves[key] = np.stack(values)
    return results, curves
