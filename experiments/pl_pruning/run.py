# SPDX-License-Identifier: Apache-2.0
"""Choose nodes, shrink, train on, and measure: every method from the same initial weights."""

from typing import Any

import jax
import numpy as np

from experiments import devices
from experiments.pl_pruning.choosing import kept_share
from experiments.pl_pruning.data import load_splits, title
from experiments.pl_pruning.gating import check_functions
from experiments.pl_pruning.measures import conditioning, size_of
from experiments.pl_pruning.methods import WHOLE
from experiments.pl_pruning.problem import Problem, problem_of
from experiments.pl_pruning.settings import Config, Regime, key_of, regime_of
from experiments.pl_pruning.training import Outcome, Run, prepare, search, steps_taken, train
from experiments.progress import Progress
from plprune import scores
from plprune.nodes.checks import concrete_keep

Results = dict[str, dict[str, list]]
Curves = dict[str, np.ndarray]


def run(config: Config, *, progress: Progress) -> tuple[Results, Curves]:
    """Results per regime and method, and the curves."""
    devices.check_divide({f"batch_size of regime {r.name}": r.batch_size for r in config.regimes})
    check_functions(config.methods)
    splits = load_splits(config)
    results: Results = {}
    curves: Curves = {}
    for regime in config.regimes:
        goals: list[float] | None = None
        for method, keep in _runs(config):
            own = regime_of(regime, method)
            outcomes = _run_method(config, own, method, keep, splits, goals, progress)
            if method == "dense":
                goals = [outcome.numbers["train_loss"] for outcome in outcomes]
            name = f"{regime.name}/{key_of(config, method, keep)}"
            results[name] = _columns([outcome.numbers for outcome in outcomes])
            for curve in outcomes[0].curves:
                curves[f"{name}/{curve}"] = _padded([o.curves[curve] for o in outcomes])
        if regime.target == 0:
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


def _run_method(config, regime, method, keep, splits, goals, progress) -> list[Outcome]:
    rate = regime.rates[0]
    if len(regime.rates) > 1:
        rate = _best_rate(config, regime, method, keep, splits, progress)
    outcomes = []
    for place, seed in enumerate(range(config.seed, config.seed + config.seeds)):
        name = f"{regime.name}/{key_of(config, method, keep)}, seed {seed}"

        def work(seed=seed, name=name, goal=goals[place] if goals else None):
            with progress.task(name, total=regime.max_steps) as task:
                problem = _placed(problem_of(config, regime, splits, seed))
                run, norm = prepare(config, regime, method, keep, rate, problem)
                numbers = _measured(config, run, norm) | {"rate": rate}
                task.advance(steps_taken(run.choice))
                with progress.loop(f"{name}, rate {rate}, training") as loop:
                    outcome = train(run, numbers, goal, task, loop)
            curves = outcome.curves | _kept(run)
            named = {f"curve {key}": curve for key, curve in curves.items()}
            return outcome.numbers | numbers | named

        found = progress.once(f"{name}, rate {rate}", work)
        numbers = {key: float(v) for key, v in found.items() if not key.startswith("curve ")}
        curves = {k.removeprefix("curve "): v for k, v in found.items() if k not in numbers}
        outcomes.append(Outcome(numbers, curves))
    return outcomes


def _best_rate(config, regime, method, keep, splits, progress) -> float:
    """The rate with the lowest final training loss (fewest steps to a target), over seeds."""
    found = []
    for seed in range(config.seed, config.seed + (config.search_seeds or config.seeds)):
        name = f"{regime.name}/{key_of(config, method, keep)}, seed {seed}, rates"

        def work(seed=seed, name=name):
            with progress.task(name, total=len(regime.rates)) as task:
                problem = _placed(problem_of(config, regime, splits, seed))
                return {"merits": search(config, regime, method, keep, problem, task)}

        found.append(progress.once(name, work)["merits"])
    mean = np.nan_to_num(np.mean(found, axis=0), nan=np.inf)
    return regime.rates[int(np.argmin(mean))]


def _placed(problem: Problem) -> Problem:
    """Its data on every device of the run; each takes its share of what a step or measure sees.

    All is computed: what still waits, such as the minibatches, would count as time of the gating.
    """
    return jax.block_until_ready(problem._replace(data=devices.replicate(problem.data)))


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
    norms: Any = scores.magnitude(
        problem.trainer.net.model.apply, (problem.params, problem.state.model), problem.dense.groups
    )
    keep = concrete_keep(choice.keep, problem.dense.groups)
    found = {"kept_fraction": share}
    for name, kept in keep.items():
        order = np.argsort(-np.asarray(norms[name]), kind="stable")
        found[f"kept {name}"] = np.asarray(kept, float)[order]
    return found


def _columns(rows: list[dict[str, float | None]]) -> dict[str, list[float | None]]:
    """Per metric, one number per seed; NaN becomes None."""
    return {
        name: [None if row[name] is None or np.isnan(row[name]) else row[name] for row in rows]
        for name in rows[0]
    }


def _padded(curves: list[np.ndarray]) -> np.ndarray:
    """[seed, step]; a seed that has reached its target stays where it is."""
    length = max(map(len, curves))
    return np.stack([np.pad(c, (0, length - len(c)), mode="edge") for c in curves])


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
