# SPDX-License-Identifier: Apache-2.0
"""Many small runs at once: error against n, the phase diagram, and the quadratic network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.matrix_sensing.config import Config
from experiments.matrix_sensing.problems import cast, grid_config, keys_of
from experiments.progress import Progress
from experiments.results import each_seed
from plprune import matrix_sensing as ms

BETAS = (-4.5, -1.5)  # Exponents of ten that the phase diagram spans.
LAMBDAS = (-3.0, 0.0)
TOL = 1e-5  # On the gradient's norm: what float32 reaches on measurements; else all steps are run.


def error(config: Config, progress: Progress):
    """Squared error after training, pruning and fine-tuning, for each number of measurements."""
    config = grid_config(config)
    theory = config.grid_sigma**2 * config.r * config.d
    found = {}
    with progress.task("error against n", total=len(config.sizes)) as task, jax.enable_x64(True):
        for n in config.sizes:
            errors = progress.once(f"n/{n}", lambda n=n: _errors(config, n))
            found[f"n/{n}"] = [
                {"squared_error_finetuned": e, "kept_columns": c, "predicted_error": theory / n}
                for e, c in zip(errors["error"], errors["columns"], strict=True)
            ]
            task.advance(1)
    return found


def phase(config: Config, progress: Progress):
    """Columns above the threshold for every (lambda, beta), by one `vmap` on the population."""
    config = grid_config(config)
    lambdas, betas = np.logspace(*LAMBDAS, config.cells), np.logspace(*BETAS, config.cells)
    with progress.task("phase diagram", total=config.seeds) as task, jax.enable_x64(True):
        runs = each_seed(
            config, progress, "phase", lambda s: _phase(config, s, lambdas, betas), task=task
        )
    return {"phase": runs}


def quadratic(config: Config, progress: Progress):
    """A two-layer network with quadratic activation, from noisy outputs on normal inputs."""
    config = grid_config(config)
    found = {}
    with progress.task("quadratic network", total=2) as task, jax.enable_x64(True):
        for method, strength in (
            ("regularised", (2 + config.r) * config.lam),
            ("unregularised", 0.0),
        ):
            work = partial(_quadratic, config, strength)
            runs = progress.once(f"quadratic/{method}", work)
            found[f"quadratic/{method}"] = [
                {name: values[i] for name, values in runs.items()} for i in range(config.seeds)
            ]
            task.advance(1)
    return found


def _seeds(config):
    return range(config.seed, config.seed + config.seeds)


def _stacked_keys(config):
    per_seed = [keys_of(seed) for seed in _seeds(config)]
    return _stack(per_seed)


@jax.jit
def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _errors(config, n):
    # So much noise must not hold up a column of its own: lambda and sqrt(beta) follow the
    # `spurious_bound` (our choice).
    scale = (config.n / n) ** 0.75
    strength, beta = config.lam * scale, config.beta * scale**2

    def run(keys):
        truth = ms.low_rank_truth(config.d, jnp.ones(config.r), key=keys["truth"])
        measurements = ms.gaussian(n, config.d, key=keys["measurements"])
        problem = ms.observe(truth, measurements, noise=config.sigma, key=keys["noise"])
        factor = _train(config, problem, keys["start"], strength, beta, config.step_size)
        pruned = ms.zero_below(factor, ms.threshold(beta))
        tuned = _fine_tune(config, problem, pruned, config.step_size / 2)
        return {
            "error": ms.squared_error(truth, tuned),
            "columns": jnp.sum(jnp.any(pruned != 0, axis=0)),
        }

    return jax.jit(jax.vmap(run))(_stacked_keys(config))


def _phase(config, seed, lambdas, betas):
    strengths, smoothings = (x.ravel() for x in np.meshgrid(lambdas, betas, indexing="ij"))
    counts = np.asarray(_kept(config, keys_of(seed), strengths, smoothings))
    bounds = ms.escape_bound(1.0, beta=1.0, form=config.form) * np.sqrt(smoothings)
    beyond = np.asarray(strengths > bounds)
    return {
        "exact_fraction": np.mean(counts == config.r),
        "collapsed_beyond_bound": np.mean(counts[beyond] == 0),
        "collapsed_within_bound": np.mean(counts[~beyond] == 0),
        "kept_columns_grid": counts,
        "lambdas": np.asarray(strengths),
        "betas": np.asarray(smoothings),
    }


@partial(jax.jit, static_argnums=0)
def _kept(config, keys, strengths, smoothings):
    """How many columns are above the threshold, for every pair."""
    truth = ms.low_rank_truth(config.d, jnp.ones(config.r), key=keys["truth"])
    problem = ms.Problem(truth, ms.GAUSSIAN)

    def columns(strength, beta):
        # Where the penalty is steeper than the loss, the step must follow it to stay stable.
        step_size = jnp.minimum(config.step_size, jnp.sqrt(beta) / (2 * strength))
        factor = _train(config, problem, keys["start"], strength, beta, step_size)
        return jnp.sum(ms.column_norms(factor) > 2 * jnp.sqrt(beta))

    return jax.vmap(columns)(strengths, smoothings)


def _quadratic(config, strength):
    # The trace term makes the loss steeper: 8 (2 + r) along U, so a smaller step.
    step_size = config.step_size / (2 + config.r)

    def run(keys):
        truth = ms.low_rank_truth(config.d, jnp.ones(config.r), key=keys["truth"])
        inputs = ms.rank_one(config.grid_n, config.d, key=keys["measurements"], quadratic=True)
        problem = ms.observe(truth, inputs, noise=config.sigma, key=keys["noise"])
        factor = _train(config, problem, keys["start"], strength, config.beta, step_size)
        return _measured(config, problem, factor, step_size, strength)

    return jax.jit(jax.vmap(run))(_stacked_keys(config))


def _measured(config, problem, factor, step_size, strength):
    population = ms.Problem(problem.truth, ms.QUADRATIC)
    norms = ms.column_norms(factor)
    above = ms.zero_below(factor, ms.threshold(config.beta))
    pruned = above if strength else ms.keep_largest(factor, config.r)
    tuned = _fine_tune(config, problem, pruned, step_size / 2)
    return {
        "kept_columns": jnp.sum(norms > ms.threshold(config.beta)),
        "large_column_fraction": ms.share_above(norms, 0.5),
        "risk": ms.loss(population, factor),
        "risk_pruned": ms.loss(population, pruned),
        "risk_finetuned": ms.loss(population, tuned),
        "squared_error_finetuned": ms.squared_error(problem.truth, tuned),
        "column_norms": jnp.sort(norms, descending=True),
    }


def _train(config, problem, key, strength, beta, step_size):
    start = ms.small_start(config.d, config.k, scale=config.start, key=key)
    end = ms.descend(
        cast(problem, jnp.float32), start, step_size=step_size, num_steps=config.steps // 2,
        strength=strength, beta=beta, form=config.form, tol=TOL,
    )  # fmt: skip
    return end.factor.astype(jnp.float64)


def _fine_tune(config, problem, factor, step_size):
    steps = 2 * config.finetune_steps
    return ms.descend(problem, factor, step_size=step_size, num_steps=steps).factor
