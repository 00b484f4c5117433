# SPDX-License-Identifier: Apache-2.0
"""Choose nodes, shrink, train on, and measure: every method from the same initial weights."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import jax
import numpy as np

from experiments import sharding
from experiments.pl_pruning.choosing import kept_share
from experiments.pl_pruning.data import load_splits, title
from experiments.pl_pruning.gating import check_functions
from experiments.pl_pruning.measures import conditioning, size_of
from experiments.pl_pruning.methods import WHOLE
from experiments.pl_pruning.networks import Dense
from experiments.pl_pruning.problem import Problem, problem_of
from experiments.pl_pruning.settings import Config, Regime, key_of, regime_of
from experiments.pl_pruning.trainer import Trainer
from experiments.pl_pruning.training import Run, prepare, search, steps_taken, train
from experiments.progress import Progress
from experiments.results import Curves, Found, Results, as_curves, collected, each_seed
from plprune import scores
from plprune.nodes.checks import concrete_keep


def run(config: Config, *, progress: Progress) -> tuple[Results, Curves]:
    """Results per regime and method, and the curves."""
    sharding.check_divide({f"batch_size of regime {r.name}": r.batch_size for r in config.regimes})
    check_functions(config.methods)
    splits = load_splits(config)
    progress.plan(sum(_num_pieces(config, regime) for regime in config.regimes))
    results: Results = {}
    curves: Curves = {}
    for regime in config.regimes:
        found: dict[str, list[Found]] = {}
        for method, keep in _runs(config):
            own, goals = regime_of(regime, method), found.get(f"{regime.name}/dense")
            runs = _run_method(config, own, method, keep, splits, goals, progress)
            found[f"{regime.name}/{key_of(config, method, keep)}"] = runs
        some, lines = collected(found)
        results, curves = results | some, curves | lines
        if regime.target == 0:
            goals = [float(run["train_loss"]) for run in found[f"{regime.name}/dense"]]
            _add_crossings(config, regime, goals, results, curves)
    return results, curves


def versions(config: Config) -> dict[str, str]:
    """What the data set calls itself, which says so where a copy is lossy."""
    return {"data": title(config)}


def _runs(config: Config) -> list[tuple[str, float]]:
    """Methods with fractions, dense first: its losses are the others' goals."""
    first = [(method, config.own_keep) for method in config.methods if method in WHOLE]
    first.sort(key=lambda pair: pair[0] != "dense")
    rest = [m for m in config.methods if m not in WHOLE]
    return first + [(method, keep) for keep in config.keep for method in rest]


def _num_pieces(config: Config, regime: Regime) -> int:
    """Runs of a regime, and searches for their rates."""
    searches = _search_seeds(config) if len(regime.rates) > 1 else 0
    return len(_runs(config)) * (config.seeds + searches)


def _run_method(config, regime, method, keep, splits, goals, progress) -> list[Found]:
    """Every seed of a method; `goals` are dense's, whose final losses are to be reached."""
    rate = regime.rates[0]
    if len(regime.rates) > 1:
        rate = _best_rate(config, regime, method, keep, splits, progress)
    name = f"{regime.name}/{key_of(config, method, keep)}"

    def work(seed):
        goal = float(goals[seed - config.seed]["train_loss"]) if goals else None
        with progress.task(f"{name}, seed {seed}", total=regime.max_steps) as task:
            problem = _placed(problem_of(config, regime, splits, seed))
            run, norm = prepare(config, regime, method, keep, rate, problem)
            numbers = _measured(config, run, norm) | {"rate": rate}
            task.advance(steps_taken(run.choice))
            with progress.loop(f"{name}, rate {rate}, seed {seed}, training") as loop:
                outcome = train(run, numbers, goal, task, loop)
        return outcome.numbers | numbers | as_curves(outcome.curves | _kept(run))

    return each_seed(config, progress, f"{name}, rate {rate}", work)


def _best_rate(config, regime, method, keep, splits, progress) -> float:
    """The rate with the lowest final training loss (fewest steps to a target), over seeds."""
    name = f"{regime.name}/{key_of(config, method, keep)}, rates"

    def work(seed):
        with progress.task(f"{name}, seed {seed}", total=len(regime.rates)) as task:
            problem = _placed(problem_of(config, regime, splits, seed))
            return {"merits": search(config, regime, method, keep, problem, task)}

    found = each_seed(replace(config, seeds=_search_seeds(config)), progress, name, work)
    mean = np.nan_to_num(np.mean([one["merits"] for one in found], axis=0), nan=np.inf)
    return regime.rates[int(np.argmin(mean))]


def _search_seeds(config: Config) -> int:
    return config.search_seeds or config.seeds


def _placed(problem: Problem) -> Problem:
    """Its data on every device of the run; each takes its share of what a step or measure sees.

    All is computed: what still waits, such as the minibatches, would count as time of the gating.
    """
    return jax.block_until_ready(problem._replace(data=sharding.replicate(problem.data)))


def _measured(config: Config, run: Run, norm: float) -> dict[str, float | None]:
    """What is known of the network right after shrinking."""
    trainer, first = run.small.trainer, run.small.first
    data = run.problem.data
    numbers = conditioning(config, trainer, first, data, config.held_out)
    if config.wide_held_out:
        wide = conditioning(config, trainer, first, data, config.wide_held_out)
        numbers["wide_kappa"] = wide["kappa"]
    numbers |= {"lipschitz_constant": norm, "kept_nodes": kept_share(run.choice.keep)}
    numbers |= size_of(trainer, first, data)
    return numbers | {"masked_difference": run.small.masked_difference}


def _kept(run: Run) -> dict[str, np.ndarray]:
    """Curves of what was kept: the fraction over the steps, and each group's nodes by norm."""
    problem, choice = run.problem, run.choice
    share = choice.kept if len(choice.kept) else np.asarray([kept_share(choice.keep)])
    norms = _norms(problem.trainer, problem.dense)((problem.params, problem.state.model))
    keep = concrete_keep(choice.keep, problem.dense.groups)
    found = {"kept_fraction": share}
    for name, kept in keep.items():
        order = np.argsort(-np.asarray(norms[name]), kind="stable")
        found[f"kept {name}"] = np.asarray(kept, float)[order]
    return found


@cache
def _norms(trainer: Trainer, dense: Dense) -> Callable:
    """(params, state) -> the norm of every node, by group."""
    apply, groups = trainer.net.model.apply, dense.groups
    return jax.jit(lambda pair: scores.magnitude(apply, pair, groups))


def _add_crossings(config: Config, regime: Regime, goals, results: Results, curves: Curves):
    """Where the target is dense's final loss: the first logged step of each seed at or below it."""
    for method, keep in _runs(config):
        name = f"{regime.name}/{key_of(config, method, keep)}"
        below = curves[f"{name}/train_loss"] <= np.asarray(goals)[:, None]
        places = [int(np.argmax(row)) if row.any() else None for row in below]
        for metric, curve in (("steps_to_target", "step"), ("target_seconds", "train_seconds")):
            results[name][metric] = [
                None if at is None else float(curves[f"{name}/{curve}"][seed, at])
                for seed, at in enumerate(places)
            ]
