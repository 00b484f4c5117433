# SPDX-License-Identifier: Apache-2.0
"""Many runs of one network's shape side by side: seeds, rates and methods in one program."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pl_pruning.atlas.starts import Start, indices_of
from experiments.pl_pruning.settings import Regime
from experiments.pl_pruning.timing import timed
from experiments.pl_pruning.trainer import Trainer, is_full_batch, optimizer
from plprune.gating import with_condition
from plprune.training import TrainState, make_step, run_full_batch, run_minibatches, start

_REPEATS = 40
_PROBE = 64  # Examples of the penalty's kernel.


class Lanes(NamedTuple):
    """Runs of one shape; every leaf has a leading axis of them."""

    states: TrainState
    rates: jax.Array
    data: tuple[jax.Array, jax.Array]
    indices: jax.Array  # [lanes, steps, batch].


def lanes_of(regime: Regime, starts: Sequence[Start], rates: Sequence[float]) -> Lanes:
    """A run for each pair of a start and a rate."""
    rule = _rule(regime, 0.0, lambda _params, _step: None)
    first = [start(s.small.first.params, s.small.first.state, rule, key=s.problem.batch_key)
             for s in starts]  # fmt: skip
    full = is_full_batch(regime)
    none = jnp.zeros((regime.max_steps, 0), jnp.int32)
    indices = [none if full else indices_of(regime, s.problem) for s in starts]
    data = [(s.problem.data.inputs, s.problem.data.targets) for s in starts]
    stacked = _stacked(first), _stacked(data), jnp.stack(indices)
    return Lanes(stacked[0], jnp.asarray(rates, jnp.float32), stacked[1], stacked[2])


def forward(regime: Regime, trainer: Trainer, lanes: Lanes, done: int, until: int):
    """The lanes after steps `done` to `until`, and their losses [lanes, entries].

    Of full batches the loss before every step; of minibatches the mean loss over all examples
    before the first one alone.
    """
    part = lanes.indices[:, done:until]
    states, losses = _advance(trainer, regime)(lanes._replace(indices=part))
    return lanes._replace(states=states), np.asarray(losses)


def accuracies(trainer: Trainer, lanes: Lanes, starts: Sequence[Start]) -> np.ndarray:
    """Of every lane on its test examples."""
    tests = _stacked([(s.problem.data.test_inputs, s.problem.data.test_targets) for s in starts])
    _, right, counted = _scores(trainer)(lanes.states.params, lanes.states.state, *tests)
    return np.asarray(right) / np.asarray(counted)


def step_seconds(regime: Regime, one: Start, steps: int) -> float:
    """The wall time of a step of one run, the shortest of some; once per shape."""
    key = regime, one.small.trainer
    if key not in _SECONDS:
        lanes = lanes_of(regime, [one], [0.0])
        lanes = lanes._replace(indices=lanes.indices[:, :steps])
        run = _advance(one.small.trainer, regime)
        _SECONDS[key] = min(timed(run, lanes)[1] for _ in range(_REPEATS)) / steps
    return _SECONDS[key]


_SECONDS: dict[tuple[Regime, Trainer], float] = {}


@lru_cache(maxsize=32)
def _advance(trainer: Trainer, regime: Regime) -> Callable:
    full = is_full_batch(regime)

    def one(lane: Lanes) -> tuple[Any, jax.Array]:
        rule = _rule(regime, lane.rates, _slope(trainer, regime, lane))
        step = make_step(trainer.train, trainer.train_loss, rule)
        if full:
            states, info = run_full_batch(step, lane.states, lane.data, len(lane.indices))
            return states, info.loss
        before = trainer.mean_loss(lane.states.params, lane.states.state, *lane.data)
        states, _ = run_minibatches(step, lane.states, lane.data, lane.indices)
        return states, before[None]

    return jax.jit(jax.vmap(one))


def _slope(trainer: Trainer, regime: Regime, lane: Lanes) -> Callable:
    """(params, step) -> the slope of the penalty of the weights, on the first examples."""
    state, probe = lane.states.state, lane.data[0][:_PROBE]

    def apply(params, inputs):
        return trainer.outputs(params, state, inputs)

    total = with_condition(lambda *_: jnp.zeros(()), regime.penalty, apply=apply)
    slope = jax.grad(total)
    return lambda params, step: slope(params, None, probe=probe, step=step, key=jax.random.key(0))


def _rule(regime: Regime, rate, slope: Callable) -> optax.GradientTransformation:
    """The optimiser of a regime, with its penalty in the gradients; the state counts steps."""
    rule = optimizer(regime, rate)
    if not regime.penalty:
        return rule

    def update(gradients, step, params=None):
        return optax.tree.add(gradients, slope(params, step)), step + 1

    return optax.chain(
        optax.GradientTransformation(lambda _: jnp.zeros((), jnp.int32), update), rule
    )


@lru_cache(maxsize=32)
def _scores(trainer: Trainer) -> Callable:
    return jax.jit(jax.vmap(trainer.scored))


def _stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
