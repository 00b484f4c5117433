# SPDX-License-Identifier: Apache-2.0
"""Runs of each figure; see `experiments.alpha_beta.config` for what they show."""

from experiments.alpha_beta.config import Config
from experiments.progress import Progress
from experiments.results import Curves, Results, collected, notes_on

UNTRAINED = ("examples", "halfspace")  # No network is.


def run(config: Config, figure: str, *, progress: Progress) -> tuple[Results, Curves]:
    """Metrics per method and seed, and curves, of one figure."""
    if figure == "examples":
        from experiments.alpha_beta.examples import examples

        return collected(examples(config, progress))
    if figure == "halfspace":
        from experiments.alpha_beta.halfspace import halfspace

        return collected(halfspace(config, progress))
    from experiments.alpha_beta.training import runs

    trained = trainings(config, figure)
    progress.plan(len(trained) * config.seeds)
    return collected(runs(config, progress, trained))


def trainings(config: Config, figure: str, data=None):
    """Method -> function that gives its `Training`, for a figure of trained networks.

    Args:
      config: Sizes.
      figure: A function of `experiments.alpha_beta.models`.
      data: ((inputs, labels), classes); loaded if None. Shapes will do to trace a run.
    """
    from experiments.alpha_beta import models

    data = models.data_of(config, figure) if data is None else data
    return getattr(models, figure)(config, data)


def versions(config: Config, figure: str | None = None) -> dict[str, str]:
    """Notes on the images of a figure, or of all figures, that are not stored losslessly."""
    datasets = {config.dataset, config.images}
    if figure is not None:
        datasets = {config.dataset} if figure in {"width", "lstm"} else {config.images}
        if figure in UNTRAINED or figure == "transformer":
            datasets = set()
    return notes_on(datasets)
