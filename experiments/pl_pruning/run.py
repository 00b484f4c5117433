"""Choose nodes, shrink, train on, and measure: every method from the same initial weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pl_pruning.choosing import Choice, choose, dense_subject
from experiments.pl_pruning.config import Config, Regime
from experiments.pl_pruning.measures import conditioning, hessian_norm, size_of
from experiments.pl_pruning.subject import (
    Data,
    Trainer,
    initial,
    is_full_batch,
    load_splits,
    regime_data,
    trainer_of,
)
from experiments.pl_pruning.timing import timed
from experiments.progress import Progress, Task
from plprune.data import Dataset, minibatches
from plprune.nodes import shrink
from plprune.training import start

CURVES = ("train_loss",)


class Subject(NamedTuple):
    """One seed of one regime: what all methods share."""

    data: Data
    params: Any
    keys: Any  # Of the gating and of the minibatches.


class Outcome(NamedTuple):
    """A finished run."""

    numbers: dict[str, float | None]
    curve: np.ndarray  # Training loss after every `log_every` steps, the start first.


def run(config: Config, *, progress: Progress) -> tuple[dict, dict]:
    """Results per regime and method, and the training-loss curves."""
    splits = load_splits(config)
    results: dict[str, dict[str, list]] = {}
    curves: dict[str, np.ndarray] = {}
    for regime in config.regimes:
        outcomes = _run_regime(config, regime, splits, progress)
        for method, seeds in outcomes.items():
            name = f"{regime.name}/{method}"
            results[name] = _columns([seed.numbers for seed in seeds])
            curves[f"{name}/train_loss"] = _padded([seed.curve for seed in seeds])
    _add_steps_to_target(config, results, curves)
    return results, curves


def versions(config: Config) -> dict[str, str]:
    """What the data set calls itself, which says so where a copy is lossy."""
    from plprune.data import load

    return {"data": load(config.dataset, split="train[:1]").title}


def _run_regime(config, regime, splits, progress) -> dict[str, list[Outcome]]:
    seeds = range(config.seed, config.seed + config.seeds)
    return {
        method: _run_method(config, regime, method, seeds, splits, progress)
        for method in config.methods
    }


def _run_method(config, regime, method, seeds, splits, progress) -> list[Outcome]:
    rate = regime.rates[0]
    if len(regime.rates) > 1:
        rate = _best_rate(config, regime, method, seeds, splits, progress)
    outcomes = []
    for seed in seeds:
        name = f"{regime.name}/{method}, seed {seed}"

        def work(seed=seed, name=name):
            with progress.task(name, total=regime.max_steps) as task:
                outcome = _measure_and_train(config, regime, method, rate, splits, seed, task)
            return {**outcome.numbers, "rate": rate, "curve": outcome.curve}

        found = progress.once(f"{name}, rate {rate}", work)
        numbers = {k: float(v) for k, v in found.items() if k != "curve"}
        outcomes.append(Outcome(numbers, found["curve"]))
    return outcomes


def _best_rate(config, regime, method, seeds, splits, progress) -> float:
    """The rate with the lowest final training loss, as a mean over the seeds."""
    losses = []
    for seed in seeds:
        name = f"{regime.name}/{method}, seed {seed}, rates"

        def work(seed=seed, name=name):
            with progress.task(name, total=len(regime.rates)) as task:
                return {"losses": _search(config, regime, method, splits, seed, task)}

        losses.append(progress.once(name, work)["losses"])
    mean = np.nan_to_num(np.mean(losses, axis=0), nan=np.inf)
    return regime.rates[int(np.argmin(mean))]


def _search(config, regime, method, splits, seed, task: Task) -> np.ndarray:
    """Final training loss for each rate; the gates are chosen again where steps depend on it."""
    subject = _subject(config, regime, splits, seed)
    choice, losses = None, []
    for rate in regime.rates:
        if choice is None or regime.period:
            choice = choose(config, regime, method, rate, *subject)
            small, params, state = _shrunk(config, regime, choice, subject)
            scaled = regime.rate_unit == "1/L"
            norm = hessian_norm(small, params, state, subject.data) if scaled else 1.0
        first = start(params, state, optax.sgd(0.0), key=subject.keys[1])
        indices = _indices(regime, subject)[_steps_taken(choice) :]
        data = subject.data.inputs, subject.data.targets
        last, _ = small.stretch(first, data, indices, rate / norm)
        losses.append(float(small.loss(last.params, state, *data)))
        task.advance(1, rate=rate, loss=losses[-1])
    return np.asarray(losses)


def _subject(config, regime, splits: tuple[Dataset, Dataset], seed: int) -> Subject:
    keys = jax.random.split(jax.random.key(seed), 4)
    params = initial(config, splits, keys[0])
    return Subject(regime_data(splits, regime, keys[1]), params, (keys[2], keys[3]))


def _shrunk(config, regime, choice: Choice, subject: Subject) -> tuple[Trainer, Any, Any]:
    """The small network's trainer, its parameters, and the state that its training starts with."""
    _, groups = dense_subject(config, regime, subject.params, subject.data)
    params = shrink(choice.params, groups, choice.keep)
    small = trainer_of(config, regime, params)
    return small, params, small.anchored(params)


def _indices(regime: Regime, subject: Subject):
    """Examples of each step; a full batch needs their number only."""
    if is_full_batch(regime):
        return jnp.zeros((regime.max_steps, 0), jnp.int32)
    count = len(subject.data.inputs)
    return minibatches(count, regime.batch_size, regime.max_steps, key=subject.keys[1])


def _steps_taken(choice: Choice) -> int:
    return 0 if choice.info is None else len(choice.info.loss)


def _measure_and_train(config, regime, method, rate, splits, seed, task: Task) -> Outcome:
    subject = _subject(config, regime, splits, seed)
    choice = choose(config, regime, method, rate, *subject)
    small, params, state = _shrunk(config, regime, choice, subject)
    norm = hessian_norm(small, params, state, subject.data)
    scaled = rate if regime.rate_unit == "1" else rate / norm
    numbers = conditioning(small, params, subject.data)
    numbers |= {"lipschitz_constant": norm, "kept_nodes": _kept(choice.keep)}
    numbers |= size_of(small, params, subject.data)
    numbers["masked_difference"] = _masked_difference(
        config, regime, choice, subject, small, params
    )
    task.advance(_steps_taken(choice))
    trained = _train(config, regime, small, params, state, choice, subject, scaled, task)
    return Outcome(trained.numbers | numbers, trained.curve)


def _train(config, regime, small, params, state, choice, subject, rate, task) -> Outcome:
    """Train on, logging after every `log_every` steps, until the target or the last step."""
    data = subject.data.inputs, subject.data.targets
    indices = _indices(regime, subject)
    done, seconds, steps = _steps_taken(choice), [], None
    current = start(params, state, optax.sgd(0.0), key=subject.keys[1])
    curve = [float(small.loss(params, state, *data))]
    while done < regime.max_steps and steps is None:
        part = indices[done : done + config.log_every]
        (current, info), spent = timed(small.stretch, current, data, part, rate)
        seconds.append(spent / len(part))
        steps = _first_below(info.loss, regime.target, done)
        done += len(part)
        curve.append(float(small.loss(current.params, state, *data)))
        task.advance(len(part), loss=curve[-1])
    test = subject.data.test_inputs, subject.data.test_labels
    return Outcome(
        {
            "steps_to_target": steps,
            "test_accuracy": float(small.accuracy(current.params, state, *test)),
            "train_loss": curve[-1],
            "train_seconds": choice.seconds + config.log_every * float(np.sum(seconds)),
            "gating_seconds": choice.gating_seconds,
            "step_seconds": float(np.median(seconds)),
        },
        np.asarray(curve),
    )


def _first_below(losses, target: float, done: int) -> int | None:
    """Steps taken when the loss first was at most a positive target; `losses` come before steps."""
    below = np.flatnonzero(np.asarray(losses) <= target) if target else []
    return done + int(below[0]) if len(below) else None


def _kept(keep: Mapping[str, np.ndarray]) -> float:
    return sum(int(k.sum()) for k in keep.values()) / sum(len(k) for k in keep.values())


def _masked_difference(config, regime, choice, subject, small, params) -> float:
    """Largest difference between the masked and the shrunk network's outputs on the test set."""
    dense, _ = dense_subject(config, regime, subject.params, subject.data)
    masked = dense.model.apply(choice.params, {}, subject.data.test_inputs)
    shrunk = small.model.apply(params, {}, subject.data.test_inputs)
    return float(jnp.max(jnp.abs(masked - shrunk)))


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


def _add_steps_to_target(config: Config, results: dict, curves: dict) -> None:
    """Where the target is dense's final loss: the first logged step of each seed at or below it."""
    for regime in config.regimes:
        if regime.target:
            continue
        goal = np.asarray(results[f"{regime.name}/dense"]["train_loss"])
        for method in config.methods:
            name = f"{regime.name}/{method}"
            below = curves[f"{name}/train_loss"] <= goal[:, None]
            first = regime.freeze_at if regime.period else 0
            results[name]["steps_to_target"] = [
                first + config.log_every * int(np.argmax(row)) if row.any() else None
                for row in below
            ]
