# SPDX-License-Identifier: Apache-2.0
"""Figure 1, the share of large columns against the start, and the rate of fine-tuning."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.matrix_sensing.config import Config
from experiments.matrix_sensing.problems import fine_tuned, finished, grid_config, trained
from experiments.progress import Progress
from experiments.results import each_seed
from plprune import matrix_sensing as ms

METHODS = {"regularised": True, "unregularised": False}
FLOOR = 1e-24  # Squared distances below this, relative to the limit's square, are rounding.


def columns(config: Config, progress: Progress):
    """Column norms, pruning and fine-tuning, with and without the regulariser."""
    return {
        method: _per_seed(config, progress, method, lambda c, s, on=on: _columns(c, s, on))
        for method, on in METHODS.items()
    }


def start(config: Config, progress: Progress):
    """The share of large columns without the regulariser, against the size of the start."""
    found = {}
    for scale in config.starts:
        setting = dataclasses.replace(config, start=scale, n=0, sigma=0.0)
        method = f"start/{scale:g}"
        found[method] = _per_seed(setting, progress, method, _start)
    return found


def finetuning(config: Config, progress: Progress):
    """Distance to the limit at each step, its fitted rate and the rate that theory predicts."""
    settings = {"regularised": config, "noisy/regularised": grid_config(config)}
    return {
        method: _per_seed(setting, progress, f"fine-tuning {method}", _finetuning)
        for method, setting in settings.items()
    }


def _per_seed(config, progress, name, work):
    with progress.task(name, total=config.seeds) as task, jax.enable_x64(True):
        return each_seed(config, progress, name, partial(work, config), task=task)


def _columns(config, seed, regularised):
    run = trained(config, seed, regularised=regularised)
    factor = run.factor.astype(jnp.float64)
    norms, share = _norms(factor)
    above = ms.prune(factor, ms.threshold(config.beta))
    pruned = above if regularised else _largest(factor, config.r)
    tuned = fine_tuned(config, run.problem, pruned)
    whole_error, pruned_error, tuned_error = _errors(run.problem.truth, (factor, pruned, tuned))
    return {
        "kept_columns": above.shape[1],
        "large_column_fraction": share,
        "squared_error": whole_error,
        "squared_error_pruned": pruned_error,
        "squared_error_finetuned": tuned_error,
        "steps": run.steps,
        "train_seconds": run.seconds,
        "column_norms": np.sort(np.asarray(norms))[::-1],
    }


def _start(config, seed):
    run = trained(config, seed, regularised=False)
    return {"large_column_fraction": _norms(run.factor)[1]}


def _finetuning(config, seed):
    run = trained(config, seed, regularised=True)
    pruned = finished(config, run)
    step_size = config.step_size / 2
    distances = _distances(run.problem, pruned, step_size, config.finetune_steps)
    limit = fine_tuned(config, run.problem, pruned)
    fit = _fit(distances, limit)
    return {
        "finetune_r2": fit.r2,
        "finetune_slope": fit.slope,
        "finetune_decades": fit.decades,
        "finetune_predicted_slope": _predicted(config, run.problem, limit, step_size),
        "finetune_distance": np.asarray(distances),
    }


def _predicted(config, problem, limit, step_size):
    """The slope of the slowest direction that the run can excite.

    On the population the error left by the regulariser lies along U itself, where the curvature is
    8 sigma^2; noise excites every direction, and the smallest curvature wins.
    """
    return _slope(None if config.n == 0 else problem, limit, step_size)


# What is told of a run, in few programs: one by one, its operations take longer to compile.
_largest = jax.jit(ms.keep_largest, static_argnums=1)


@jax.jit
def _norms(factor):
    """Of the columns, and the share of large ones."""
    norms = ms.column_norms(factor)
    return norms, ms.share_above(norms, 0.5)


@jax.jit
def _errors(truth, factors):
    return [ms.squared_error(truth, factor) for factor in factors]


@jax.jit
def _fit(distances, limit):
    return ms.fit_linear_convergence(distances, floor=FLOOR * jnp.sum(jnp.square(limit)))


@jax.jit
def _slope(problem, limit, step_size):
    curvatures = jnp.full(1, 8.0) if problem is None else ms.curvatures(problem, limit)
    return ms.predicted_slope(curvatures, step_size)


_distances = jax.jit(
    lambda problem, start, step_size, num_steps: ms.distances_to_limit(
        problem, start, step_size=step_size, num_steps=num_steps
    ),
    static_argnums=3,
)
