# SPDX-License-Identifier: Apache-2.0
"""Training a network to the end, with what is logged on the way; and the search for its rate."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import sharding
from experiments.pl_pruning.choosing import choose
from experiments.pl_pruning.measures import hessian_norm, tracked
from experiments.pl_pruning.problem import Choice, Problem, Small, small_of
from experiments.pl_pruning.settings import Config, Regime, tracked_steps
from experiments.pl_pruning.timing import timed
from experiments.progress import Task
from experiments.resuming import Here, Loop
from plprune.training import TrainState

TEST_EXAMPLES = 1000  # In the curve of the test accuracy; the final number is over all.
LOGGED = ("step", "train_loss", "test_accuracy", "train_seconds")
TRACKED = ("kappa", "pl_constant", "lipschitz_constant")


Numbers = dict[str, float | None]


class Run(NamedTuple):
    """What trains, and how."""

    config: Config
    regime: Regime
    problem: Problem
    choice: Choice
    small: Small
    rate: float  # Per step.


class Outcome(NamedTuple):
    """A finished run."""

    numbers: Numbers
    curves: dict[str, np.ndarray]


class _Log:
    """Curves so far: one entry at the start and one after every `log_every` steps."""

    def __init__(self, run: Run):
        self.run, self.step_seconds = run, []
        self.curves: dict[str, list] = {name: [] for name in LOGGED}
        self.tracked: dict[str, list] = {name: [] for name in TRACKED}
        self.best, self.best_state = -1.0, run.small.first

    def add(self, now: TrainState, done: int, spent: float = 0.0, steps: int = 0) -> float:
        """Evaluate after `done` steps, the last `steps` in `spent` seconds; the training loss."""
        config, _, problem, choice = self.run[:4]
        trainer, data = self.run.small.trainer, problem.data
        before = self.curves["train_seconds"][-1:] or [choice.seconds]
        if steps:
            self.step_seconds.append(spent / steps)
        found = trainer.evaluate(
            now.params, now.state, data.inputs, data.targets, config.curve_examples
        )
        tests = data.test_inputs, data.test_targets, TEST_EXAMPLES
        self.curves["step"].append(done)
        self.curves["train_loss"].append(found.loss)
        self.curves["test_accuracy"].append(
            trainer.evaluate(now.params, now.state, *tests).accuracy
        )
        self.curves["train_seconds"].append(before[0] + spent)
        if data.validation is not None:
            accuracy = trainer.evaluate(now.params, now.state, *data.validation).accuracy
            if accuracy > self.best:
                self.best, self.best_state = accuracy, now
        return found.loss

    def kept(self) -> dict[str, list]:
        """All of it but the states, for a checkpoint."""
        own = {"best": [self.best], "step_seconds": self.step_seconds}
        return self.curves | {f"tracked {k}": v for k, v in self.tracked.items()} | own

    def restore(self, here: Here) -> None:
        """As it was when `kept` was asked for."""
        lists = {name: list(values) for name, values in here.infos.items()}
        self.best, self.best_state = float(lists["best"][0]), here.state["best"]
        self.step_seconds = lists["step_seconds"]
        self.curves = {name: lists[name] for name in LOGGED}
        self.tracked = {name: lists[f"tracked {name}"] for name in TRACKED}

    def is_finite(self) -> bool:
        """Whether training has not diverged."""
        return bool(np.isfinite(self.curves["train_loss"][-1]))

    def has_reached(self, goal: float) -> bool:
        """Whether the training loss has been at or below `goal`."""
        return min(self.curves["train_loss"]) <= goal

    def track(self, now: TrainState, known: Numbers | None = None) -> None:
        """Measure kappa, mu and L, unless they are known."""
        run = self.run
        found = known or tracked(run.config, run.small.trainer, now, run.problem.data)
        for name, values in self.tracked.items():
            values.append(np.nan if found[name] is None else found[name])


def train(run: Run, first: Numbers, goal: float | None, task: Task, loop: Loop) -> Outcome:
    """Train on, logging after every `log_every` steps, to the target or the last step.

    Args:
      run: What trains.
      first: What was measured at the start.
      goal: Loss to reach, at a constant rate within `extension` times the steps; None for dense.
      task: Told of every step.
      loop: Its checkpoints, from which it goes on.
    """
    regime = run.regime
    log, times = _Log(run), tracked_steps(run.config, regime)
    now, done = _begun(run, log, loop, task, first if times else None)
    reached = None
    while done < regime.max_steps and reached is None and log.is_finite():
        now, done, reached = _stretch(run, now, done, log, task)
        if done in times:
            log.track(now)
        if reached is None:
            loop.offer(done, {"now": now, "best": log.best_state}, log.kept())
    while len(log.tracked["kappa"]) < len(times):  # It stands still at its target.
        log.track(now)
    numbers = _final(run, now, log)
    if goal is not None and regime.target == 0 and regime.decay == "constant":
        while done < regime.most_steps and log.is_finite() and not log.has_reached(goal):
            now, done, _ = _stretch(run, now, done, log, task)
    curves = {name: np.asarray(values) for name, values in log.curves.items()}
    curves |= {name: np.asarray(values) for name, values in log.tracked.items() if times}
    return Outcome(numbers | {"steps_to_target": reached}, curves)


def _begun(run, log, loop, task, first: Numbers | None) -> tuple[TrainState, int]:
    """The latest checkpoint, or the start, logged; `first` is tracked where it is given."""
    now, done = run.small.first, steps_taken(run.choice)
    if here := loop.latest({"now": now, "best": log.best_state}):
        task.advance(here.done - done)
        log.restore(here)
        return here.state["now"], here.done
    log.add(now, done)
    if first is not None:
        log.track(now, first)
    return now, done


def prepare(
    config: Config, regime: Regime, method: str, keep: float, rate: float, problem: Problem
) -> tuple[Run, float]:
    """The run of a method, its nodes chosen, with the Hessian's norm at its start.

    The norm is NaN where the steps meanwhile diverged.
    """
    choice = choose(config, regime, method, keep, rate, problem)
    small = small_of(config, regime, choice, problem)
    small = small._replace(first=sharding.replicate(small.first))
    sizes = [np.linalg.norm(np.ravel(leaf)) for leaf in jax.tree.leaves(small.first.params)]
    diverged = not np.isfinite(sizes).all()  # While nodes were chosen.
    norm = np.nan if diverged else hessian_norm(small.trainer, small.first, problem.data)
    scaled = rate / norm if regime.rate_unit == "1/L" else rate
    return Run(config, regime, problem, choice, small, scaled), norm


def search(
    config: Config, regime: Regime, method: str, keep: float, problem: Problem, task: Task
) -> np.ndarray:
    """A number for each rate, smaller = better; nodes are chosen again where steps depend on it."""
    run, norm, found = None, 1.0, []
    for rate in regime.rates:
        if run is None or regime.period:
            run, norm = prepare(config, regime, method, keep, rate, problem)
        scaled = rate / norm if regime.rate_unit == "1/L" else rate
        found.append(_merit(run._replace(rate=scaled)))
        task.advance(1, rate=rate, merit=found[-1])
    return np.asarray(found)


def steps_taken(choice: Choice) -> int:
    """Steps that were taken while nodes were chosen."""
    return 0 if choice.info is None else len(choice.info.loss)


def _merit(run: Run) -> float:
    """Final training loss; with a positive target, the steps to it."""
    regime, data = run.regime, run.problem.data
    now, done, reached = run.small.first, steps_taken(run.choice), None
    while done < regime.max_steps and reached is None:
        part = run.problem.indices[done : min(done + run.config.log_every, regime.max_steps)]
        arrays = data.inputs, data.targets
        (now, info), _ = timed(run.small.trainer.stretch, now, arrays, part, rate=run.rate)
        reached = _first_below(info.loss, regime.target, done)
        done += len(part)
        if not np.isfinite(info.loss[-1]):
            return np.inf
    if reached is not None:
        return float(reached)
    examples = run.config.curve_examples
    loss = run.small.trainer.evaluate(
        now.params, now.state, data.inputs, data.targets, examples
    ).loss
    # What misses the target is worse than what reaches it.
    return loss + (2.0 * regime.max_steps if regime.target else 0.0)


def _stretch(run: Run, now, done, log: _Log, task: Task) -> tuple[TrainState, int, int | None]:
    data = run.problem.data.inputs, run.problem.data.targets
    last = run.regime.max_steps if done < run.regime.max_steps else run.regime.most_steps
    part = run.problem.indices[done : min(done + run.config.log_every, last)]
    (now, info), spent = timed(run.small.trainer.stretch, now, data, part, rate=run.rate)
    reached = _first_below(info.loss, run.regime.target, done)
    loss = log.add(now, done + len(part), spent, len(part))
    task.advance(len(part), loss=loss)
    return now, done + len(part), reached


def _final(run: Run, now: TrainState, log: _Log) -> Numbers:
    """Numbers after the last step, or for the accuracy at the best one by validation."""
    trainer, data = run.small.trainer, run.problem.data
    test = trainer.evaluate(now.params, now.state, data.test_inputs, data.test_targets)
    found = {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "train_loss": log.curves["train_loss"][-1],
        "train_seconds": log.curves["train_seconds"][-1],
        "gating_seconds": run.choice.gating_seconds,
        "step_seconds": float(np.median(log.step_seconds)) if log.step_seconds else 0.0,
    }
    if data.validation is not None:
        best: Any = log.best_state
        stopped = trainer.evaluate(best.params, best.state, data.test_inputs, data.test_targets)
        found |= {"test_accuracy": stopped.accuracy, "final_test_accuracy": test.accuracy}
        found["validation_accuracy"] = log.best
    return found


def _first_below(losses, target: float, done: int) -> int | None:
    """Steps taken when the loss first was at most a positive target; `losses` come before steps."""
    below = np.flatnonzero(np.asarray(losses) <= target) if target else []
    return done + int(below[0]) if len(below) else None
