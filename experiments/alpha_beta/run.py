# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.alpha_beta.config` for what they show."""

import importlib

from experiments.alpha_beta.config import Config
from experiments.progress import Progress
from experiments.results import Curves, Results, collected, notes_on

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


def run(config: Config, figure: str, *, progress: Progress) -> tuple[Results, Curves]:
    """Metrics per method and seed, and curves, of one figure."""
    if figure in ANALYTIC:
        module = importlib.import_module(f"experiments.alpha_beta.{ANALYTIC[figure]}")
        return collected(getattr(module, figure)(config, progress))
    from experiments.alpha_beta.training import runs

    trained = settings(config, figure)
    progress.plan(len(trained) * config.seeds)
    return collected(runs(config, progress, trained))


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


def versions(config: Config, figure: str | None = None) -> dict[str, str]:
    """Notes on the images of a figure, or of all figures, that are not stored losslessly."""
    datasets = {config.dataset, config.images}
    if figure is not None:
        datasets = {config.dataset} if figure in {"width", "lstm"} else {config.images}
        if figure in ANALYTIC or figure == "transformer":
            datasets = set()
    return notes_on(datasets)
