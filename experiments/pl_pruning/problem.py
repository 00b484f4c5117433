# SPDX-License-Identifier: Apache-2.0
"""A seed's training problem, the choice that a method makes, and the network that it leaves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_pruning.data import Data, Splits, regime_data
from experiments.pl_pruning.networks import Dense, Shape, build, counts_of, dense, shape_of
from experiments.pl_pruning.settings import Config, Regime
from experiments.pl_pruning.trainer import (
    State,
    Trainer,
    calibrated,
    indices_of,
    optimizer,
    trainer_of,
)
from plprune.functional import functional
from plprune.nodes import shrink
from plprune.training import TrainInfo, TrainState, start


class Problem(NamedTuple):
    """One seed of one regime: what all methods share."""

    shape: Shape
    dense: Dense
    trainer: Trainer  # Of the dense network.
    data: Data
    params: Any  # Of the dense network at its start.
    state: State
    gating_key: jax.Array
    batch_key: jax.Array
    indices: jax.Array  # Examples of each step.


class Choice(NamedTuple):
    """The dense-shaped network when its kept nodes are final."""

    params: Any  # Closed nodes are exactly zero.
    state: Any  # Of the model.
    keep: dict[str, np.ndarray]
    opt_state: Any  # Dense-shaped; None where no step was taken.
    info: TrainInfo | None  # Of the steps taken meanwhile.
    kept: np.ndarray  # [steps], the fraction of nodes open at each of these steps.
    seconds: float  # Of those steps and of the gating.
    gating_seconds: float
    gating_flops: float = 0.0  # Eigen-solvers apart; of what is chosen before training.


class Small(NamedTuple):
    """A network without the closed nodes, ready to be trained on."""

    trainer: Trainer
    first: TrainState
    masked_difference: float


def problem_of(config: Config, regime: Regime, splits: Splits, seed: int) -> Problem:
    """The data, initial weights and keys of a seed."""
    shape = shape_of(splits)
    keys = jax.random.split(jax.random.key(seed), 4)
    model = functional(build(config.network, shape, keys[0]))
    data = regime_data(splits, regime, keys[1])
    trainer = trainer_of(config.network, regime, shape, None)
    state = calibrated(trainer, model.params, model.state, data)
    return Problem(
        shape, dense(config.network, shape), trainer, data, model.params,
        _anchored(regime, state, model.params), keys[2], keys[3],
        indices_of(regime, data, keys[3]),
    )  # fmt: skip


def all_open(dense: Dense) -> dict[str, np.ndarray]:
    """Every node of the groups that may lose some."""
    return {name: np.ones(size, bool) for name, size in dense.sizes.items()}


def untrained(problem: Problem, params: Any, keep: dict[str, np.ndarray], seconds: float) -> Choice:
    """A choice that was made before the first step."""
    state = problem.state.model
    return Choice(params, state, keep, None, None, np.zeros(0), seconds, seconds)


def small_of(config: Config, regime: Regime, choice: Choice, problem: Problem) -> Small:
    """The native network of the kept nodes, with the optimiser's state of the steps so far."""
    groups, keep = problem.dense.groups, choice.keep
    params, state = shrink((choice.params, choice.state), groups, keep)
    trainer = trainer_of(config.network, regime, problem.shape, counts_of(keep))
    full = problem.trainer.net.model, choice.params, choice.state
    difference = _difference(full, (trainer.net.model, params, state), problem.data.test_inputs)
    state = calibrated(trainer, params, state, problem.data)
    rule = optimizer(regime, 0.0)
    first = start(params, _anchored(regime, state, params), rule, key=problem.batch_key)
    if choice.opt_state is not None:
        first = first._replace(opt_state=shrink(choice.opt_state, groups, keep))
    return Small(trainer, first, difference)


def _anchored(regime, state, params):
    return State(state, params if regime.centred else {})


def _difference(masked, small, inputs, chunk=1000) -> float:
    """Largest difference between the two networks' outputs."""
    found = []
    for first in range(0, len(inputs), chunk):
        part = inputs[first : first + chunk]
        one, other = (net.apply(params, state, part) for net, params, state in (masked, small))
        found.append(float(jnp.max(jnp.abs(one - other))))
    return max(found)
