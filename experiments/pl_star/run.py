# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.pl_star.config` for what they show."""

import importlib
from collections.abc import Callable

import jax
import numpy as np

from experiments.pl_star.config import Config
from experiments.progress import Progress
from experiments.results import collected

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
    return collected(_by_method(_per_seed(config, progress, figure, work)))


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


def _by_method(seeds: list[dict[str, np.ndarray]]) -> dict[str, list[dict[str, np.ndarray]]]:
    """Keys "method/metric" of every seed, as one dictionary per method and seed."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for place, seed in enumerate(seeds):
        for key, value in seed.items():
            method, _, metric = key.rpartition("/")
            found.setdefault(method, [{} for _ in seeds])[place][metric] = value
    return found
