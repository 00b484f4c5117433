"""How each method chooses the nodes to keep, before training or during its first steps."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.pl_pruning.config import Config, Regime
from experiments.pl_pruning.subject import Data, Trainer, trainer_of
from experiments.pl_pruning.timing import timed
from plprune import scores
from plprune.data import minibatches
from plprune.gating import pl_gating, score_gating
from plprune.nodes import find_nodes
from plprune.training import TrainInfo, make_step, run_minibatches, start
from plprune.types import NodeGroups


class Choice(NamedTuple):
    """The dense-shaped network when its kept nodes are final."""

    params: Any  # Closed nodes are exactly zero.
    keep: dict[str, np.ndarray]
    info: TrainInfo | None  # Of the steps taken meanwhile.
    seconds: float  # Of those steps and of the gating.
    gating_seconds: float


def choose(
    config: Config, regime: Regime, method: str, rate: float, data: Data, params: Any, keys
) -> Choice:
    """Gate before training, or while the first `regime.freeze_at` steps are taken.

    Args:
      config: The experiment.
      regime: Says which of the two.
      method: One of `config.METHODS`.
      rate: Learning rate of the steps.
      data: Of the regime.
      params: The dense network at its start.
      keys: (of the gating, of the minibatches).
    """
    subject, groups = dense_subject(config, regime, params, data)
    probe = data.inputs
    if regime.period == 0:
        if method == "dense":
            return Choice(params, _all_open(groups), None, 0.0, 0.0)
        gate = _gate_once(_budget(config), regime, method, subject, groups)
        (params, keep), seconds = timed(gate, keys[0], params, probe)
        return Choice(params, _concrete(keep), None, seconds, seconds)
    indices = minibatches(len(probe), regime.batch_size, regime.freeze_at, key=keys[1])
    batches = (data.inputs, data.targets), indices, rate
    budget = _budget(config)
    plain = _warm_up(budget, regime, "dense", subject, groups)
    arguments = keys[0], params, subject.anchored(params), *batches
    (trained, keep, info), plain_seconds = timed(plain, *arguments)
    if method == "dense":
        return Choice(trained, _all_open(groups), info, plain_seconds, 0.0)
    gated = _warm_up(budget, regime, method, subject, groups)
    (trained, keep, info), seconds = timed(gated, *arguments)
    return Choice(trained, _concrete(keep), info, seconds, max(0.0, seconds - plain_seconds))


def dense_subject(
    config: Config, regime: Regime, params: Any, data: Data
) -> tuple[Trainer, NodeGroups]:
    """The trainer of the dense network and its node groups."""
    subject = trainer_of(config, regime, params)
    return subject, _groups(subject, jax.eval_shape(lambda: (params, data.inputs[:2])))


class _Budget(NamedTuple):
    """What the compiled gating depends on, of the configuration."""

    keep_fraction: float
    probe_size: int


def _budget(config):
    return _Budget(config.keep, config.probe_size)


def _all_open(groups):
    return {name: np.ones(size, bool) for name, size in groups.prunable.items()}


def _concrete(keep):
    return {name: np.asarray(kept) for name, kept in keep.items()}


_FOUND: dict[Trainer, NodeGroups] = {}


def _groups(subject, shapes):
    if subject not in _FOUND:
        _FOUND[subject] = find_nodes(lambda p, x: subject.model.apply(p, {}, x), *shapes)
    return _FOUND[subject]


def _transformation(budget, regime, method, subject, groups, inner, key):
    """The gated optimiser of a method; plain `inner` for dense."""
    if method == "dense":
        return inner
    options: dict[str, Any] = budget._asdict()
    if regime.period:
        options |= {"period": regime.period, "freeze_at": regime.freeze_at, "schedule": "cubic"}

    def apply(params, inputs):
        return subject.model.apply(params, {}, inputs)

    if method == "kappa":
        options |= {"initial_updates": regime.initial_updates}
        return pl_gating(inner, apply, groups, key=key, **options)
    score = getattr(scores, method)
    return score_gating(inner, apply, groups, score=score, key=key, **options)


@cache
def _gate_once(budget, regime, method, subject, groups) -> Callable:
    """(key, params, probe) -> (params, keep): the first call of the transformation, no gradient."""

    def gate(key, params, probe):
        optimizer = _transformation(budget, regime, method, subject, groups, optax.identity(), key)
        zeros = optax.tree.zeros_like(params)
        updates, state = optimizer.update(zeros, optimizer.init(params), params, probe=probe)
        return optax.apply_updates(params, updates), state.keep

    return jax.jit(gate)


@cache
def _warm_up(budget, regime, method, subject, groups) -> Callable:
    """The first `freeze_at` steps: (key, params, state, data, indices, rate) to the end of them."""

    def run(key, params, state, data, indices, rate):
        optimizer = _transformation(budget, regime, method, subject, groups, optax.sgd(rate), key)
        step = make_step(subject.train, subject.per_example, optimizer)
        extra = {} if method == "dense" else {"probe": data[0]}
        first = start(params, state, optimizer, key=key)
        last, info = run_minibatches(step, first, data, indices, **extra)
        keep = {} if method == "dense" else last.opt_state.keep
        return last.params, keep, info

    return jax.jit(run)
