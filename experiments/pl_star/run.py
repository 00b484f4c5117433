# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.pl_star.config` for what they show."""

import importlib
from functools import partial

import jax

from experiments.pl_star.config import Config
from experiments.progress import Progress
from experiments.results import Curves, Results, by_method, collected, each_seed

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


def run(config: Config, figure: str, *, progress: Progress) -> tuple[Results, Curves]:
    """Metrics per method and seed, and curves, of one figure.

    A figure is a function ``(config, seed) -> {"method/metric": number or array}``.
    """
    work = getattr(importlib.import_module(f"experiments.pl_star.{MODULES[figure]}"), figure)
    # The smallest eigenvalues need float64.
    with progress.task(figure, total=config.seeds) as task, jax.enable_x64(True):
        return collected(
            by_method(each_seed(config, progress, figure, partial(work, config), task=task))
        )


def versions(config: Config, figure: str | None = None) -> dict[str, str]:
    """What the data set calls itself, which says so where a copy is lossy."""
    from plprune.data import load

    del figure
    return {"data": load(config.dataset, split="train[:1]").title}
