# SPDX-License-Identifier: Apache-2.0
"""Nodes chosen while the dense network takes its first steps."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pl_pruning.cases import Case, Choice, all_open
from experiments.pl_pruning.networks import Dense
from experiments.pl_pruning.rules import Budget, budget_of, transformation
from experiments.pl_pruning.settings import Config, Regime
from experiments.pl_pruning.subject import Trainer, optimizer, stretch_of
from experiments.pl_pruning.timing import timed
from plprune.gating import GatingState
from plprune.training import make_step, start


def gate_while_training(
    config: Config, regime: Regime, method: str, keep: float, rate: float, case: Case
) -> Choice:
    """Close nodes along the regime's schedule in its first `freeze_at` steps.

    The seconds of gating are those of the steps less those of as many plain ones; the state of the
    gates is made before.
    """
    budget, data = budget_of(config, method, keep, case), (case.data.inputs, case.data.targets)

    def warmed_up(method):
        run = _warm_up(budget, regime, method, case.subject, case.dense)
        rule = _rule(budget, regime, method, case.subject, case.dense, rate, case.gating_key)
        first = start(case.params, case.state, rule, key=case.gating_key)
        indices = case.indices[: regime.freeze_at]
        return timed(run, first, data, indices, rate=rate, key=case.gating_key, probe=data)

    (last, (info, opened)), plain_seconds = warmed_up("dense")
    opt_state, kept, seconds = last.opt_state, all_open(case.dense), plain_seconds
    if method != "dense":
        (last, (info, opened)), seconds = warmed_up(method)
        opt_state, kept = last.opt_state.inner, jax.device_get(last.opt_state.keep)
    return Choice(
        last.params, last.state.model, kept, opt_state, info, np.asarray(opened), seconds,
        max(0.0, seconds - plain_seconds),
    )  # fmt: skip


def _rule(budget, regime, method, subject, dense, rate, key) -> optax.GradientTransformation:
    inner = optimizer(regime, rate)
    if method == "dense":
        return inner
    return transformation(budget, regime, method, subject, dense, inner, key)


@cache
def _warm_up(
    budget: Budget, regime: Regime, method: str, subject: Trainer, dense: Dense
) -> Callable:
    """Compiled steps: (train_state, data, indices, *, rate, key, probe) -> state and infos."""

    def step(train_state, batch, *, rate, key, probe):
        rule = _rule(budget, regime, method, subject, dense, rate, key)
        on_probe = {"probe": probe, "model_state": train_state.state.model}
        taken = make_step(subject.train, subject.train_loss, rule)
        moved, info = taken(train_state, batch, **({} if method == "dense" else on_probe))
        return moved, (info, _open_share(moved.opt_state))

    return stretch_of(subject.net, regime, step)


def _open_share(state):
    if not isinstance(state, GatingState):
        return jnp.ones(())
    return jnp.mean(jnp.concatenate(list(state.keep.values())))
