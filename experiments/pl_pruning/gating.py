# SPDX-License-Identifier: Apache-2.0
"""Nodes chosen by gates or by a score, before training or while its first steps are taken.

Experts are ranked apart: a router's softmax keeps any gate on parameters from scaling them.
"""

from collections.abc import Callable, Iterable
from functools import cache
from pkgutil import resolve_name
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from experiments.pl_pruning.methods import METHODS, Gates, Score
from experiments.pl_pruning.networks import Dense, node_costs
from experiments.pl_pruning.problem import Choice, Problem, all_open, untrained
from experiments.pl_pruning.settings import Config, Regime
from experiments.pl_pruning.timing import operations, timed
from experiments.pl_pruning.trainer import Trainer, loss_of, optimizer, stretch_of
from plprune.gating import (
    GatingState,
    Setting,
    hard_concrete,
    pl_gating,
    score_gating,
    thresholded,
    with_risk,
)
from plprune.gating.objectives import Objective
from plprune.nodes import keep_top, mask
from plprune.scores import Probe
from plprune.scores.slices import NodeScores, scaled, unit_factors
from plprune.training import make_step, start

_EXPERT_EXAMPLES = 32


class Budget(NamedTuple):
    """What the compiled gating depends on, of the configuration."""

    keep_fraction: float
    probe_size: int
    costs: tuple[tuple[str, float], ...] = ()  # Of one node of each group, where they count.


def gate_before_training(
    config: Config, regime: Regime, by: Gates | Score, keep: float, problem: Problem
) -> Choice:
    """Close nodes of the initial network."""
    budget = budget_of(config, by, keep, problem)
    gate = _gate_once(budget, regime, by, problem.trainer, problem.dense)
    probe = problem.data.inputs, _labels(regime, problem)
    arguments = problem.gating_key, problem.params, problem.state.model, probe
    (params, kept), seconds = timed(gate, *arguments)
    choice = untrained(problem, params, jax.device_get(kept), seconds)
    rounds = _updates(by, regime) if isinstance(by, Gates) else 1  # Counted once by the compiler.
    return choice._replace(gating_flops=rounds * operations(gate, *arguments))


def gate_while_training(
    config: Config, regime: Regime, by: Gates | Score | None, keep: float, rate: float,
    problem: Problem,
) -> Choice:  # fmt: skip
    """Close nodes along the regime's schedule in its first `freeze_at` steps; none for None.

    The seconds of gating are those of the steps less those of as many plain ones; the state of the
    gates is made before.
    """
    budget, data = budget_of(config, by, keep, problem), (problem.data.inputs, problem.data.targets)
    key, network = problem.gating_key, (problem.trainer, problem.dense)

    def warmed_up(by):
        run = _warm_up(budget, regime, by, *network)
        rule = _rule(budget, regime, by, *network, rate, key)
        first = start(problem.params, problem.state, rule, key=key)
        indices = problem.indices[: regime.freeze_at]
        return timed(run, first, data, indices, rate=rate, key=key, probe=data)

    (last, (info, opened)), plain_seconds = warmed_up(None)
    opt_state, kept, seconds = last.opt_state, all_open(problem.dense), plain_seconds
    if by is not None:
        (last, (info, opened)), seconds = warmed_up(by)
        opt_state, kept = last.opt_state.inner, jax.device_get(last.opt_state.keep)
    return Choice(
        last.params, last.state.model, kept, opt_state, info, np.asarray(opened), seconds,
        max(0.0, seconds - plain_seconds),
    )  # fmt: skip


@cache
def _gate_once(budget, regime, by, trainer, dense: Dense) -> Callable:
    """(key, params, state, probe) -> (params, keep): the transformation's first call."""

    def gate(key, params, state, probe):
        inner = optax.identity()
        rule = transformation(budget, regime, by, trainer, dense, inner, key)
        zeros, first = optax.tree.zeros_like(params), rule.init(params)
        updates, after = rule.update(zeros, first, params, probe=probe, model_state=state)
        params, keep = optax.apply_updates(params, updates), after.keep
        if dense.experts:
            found = ranked_experts(by, regime, trainer, dense, (params, state), probe, key)
            routed = keep_top(found, dense.groups, budget.keep_fraction)
            params, keep = mask(params, dense.groups, routed), keep | routed
        return params, keep

    return jax.jit(gate)


@cache
def _warm_up(budget, regime, by, trainer: Trainer, dense: Dense) -> Callable:
    """Compiled steps: (train_state, data, indices, *, rate, key, probe) -> state and infos."""

    def step(train_state, batch, *, rate, key, probe):
        rule = _rule(budget, regime, by, trainer, dense, rate, key)
        on_probe = {"probe": probe, "model_state": train_state.state.model}
        taken = make_step(trainer.train, trainer.train_loss, rule)
        moved, info = taken(train_state, batch, **({} if by is None else on_probe))
        return moved, (info, _open_share(moved.opt_state))

    return stretch_of(trainer.net, regime, step)


def _rule(budget, regime, by, trainer, dense, rate, key) -> optax.GradientTransformation:
    inner = optimizer(regime, rate)
    return inner if by is None else transformation(budget, regime, by, trainer, dense, inner, key)


def _open_share(state):
    if not isinstance(state, GatingState):
        return jnp.ones(())
    return jnp.mean(jnp.concatenate(list(state.keep.values())))


def _labels(regime, problem):
    """Targets of the probe; a centred regime fits them from the initial outputs on."""
    if not regime.centred:
        return problem.data.targets
    return problem.data.targets + problem.trainer.net.model.apply(
        problem.params, problem.state.model, problem.data.inputs
    )


def budget_of(config: Config, by: Gates | Score | None, keep: float, problem: Problem) -> Budget:
    """The budget at a fraction."""
    by_cost = isinstance(by, Gates) and by.budget == "cost"
    costs = node_costs(config.network, problem.shape) if by_cost else ()
    return Budget(keep, config.probe_size, costs)


def check_functions(methods: Iterable[str]) -> None:
    """Raise ValueError, in a line, for a method whose function cannot be imported."""
    for method in methods:
        by = METHODS[method].by
        if isinstance(by, Gates | Score):
            function = by.objective if isinstance(by, Gates) else by.function
            try:
                resolve_name(function)
            except (ImportError, AttributeError, ValueError) as error:
                raise ValueError(f"method {method}: no {function} ({error}).") from error


def score_of(by: Score) -> Callable:
    """The function that ranks nodes."""
    return resolve_name(by.function)


def objective_of(by: Gates, regime: Regime) -> Objective:
    """What the gates minimise."""
    objective = resolve_name(by.objective)(**dict(by.arguments))
    return with_risk(objective, weight=regime.risk_weight) if by.with_loss else objective


def transformation(
    budget: Budget,
    regime: Regime,
    by: Gates | Score,
    trainer: Trainer,
    dense: Dense,
    inner: optax.GradientTransformation,
    key: PRNGKeyArray,
) -> optax.GradientTransformationExtraArgs:
    """`inner` with gates, or with the choice of the largest scores."""
    options: dict[str, Any] = {
        "keep_fraction": budget.keep_fraction, "probe_size": budget.probe_size,
        "exclude": tuple(name for name in dense.groups.prunable if name not in dense.sizes),
        "within_heads": True, "loss": loss_of(regime), "key": key,
    }  # fmt: skip
    if regime.period:
        options |= {"period": regime.period, "freeze_at": regime.freeze_at}
        options["schedule"] = regime.schedule
    apply = trainer.net.model.apply
    if isinstance(by, Gates):
        return pl_gating(inner, apply, dense.groups, **options | _gates(by, regime, budget))
    options["probe_size"] = max(by.examples, budget.probe_size)
    return score_gating(inner, apply, dense.groups, score=score_of(by), **options)


def _gates(by, regime, budget: Budget) -> dict[str, Any]:
    updates = _updates(by, regime)
    options = {"objective": objective_of(by, regime), "initial_updates": updates}
    options["probe_size"] = budget.probe_size // by.probe_parts
    if by.network is not None:
        options["network"] = by.network
    if by.budget is not None:
        options |= {"budget": by.budget, "min_fraction": budget.keep_fraction / 2}
    if by.budget == "cost":
        options["node_costs"] = dict(budget.costs)
    if by.noisy:
        options["relaxation"] = hard_concrete()
    if by.sharpened:
        options["relaxation"] = thresholded(optax.linear_schedule(1.0, 0.1, updates))
    if by.rate is not None:
        options["gate_optimizer"] = optax.adam(by.rate)
    return options


def _updates(by: Gates, regime: Regime) -> int:
    return regime.initial_updates * (by.sharpened or 1)


def ranked_experts(
    by: Gates | Score, regime: Regime, trainer: Trainer, dense: Dense, pair: Any, probe: Any,
    key: jax.Array,
) -> NodeScores:  # fmt: skip
    """One number per expert, larger = keep, by the same objective or score as all other nodes.

    Args:
      by: Gates, for which a factor on what computes an expert stands for its gate: the number is
        minus the slope of the objective in it, at 1. Or a score, on drawn examples.
      regime: Its loss counts.
      trainer: Of the dense network.
      dense: Its nodes.
      pair: Its parameters and state.
      probe: Inputs and labels, of which some are drawn.
      key: Draws them.
    """
    inputs, labels = _drawn(probe, key)
    groups = dense.groups

    def apply(pair, inputs):
        return trainer.net.model.apply(*pair, inputs)

    if isinstance(by, Score):
        found = score_of(by)(apply, pair, groups, Probe(inputs, labels, trainer.loss, key))
        return {name: found[name] for name in dense.experts}

    def model(params, inputs, factors):
        return apply(scaled((params, pair[1]), groups, factors), inputs)

    objective = objective_of(by, regime)
    setting = Setting(model, pair[0], inputs, labels, trainer.loss, key)
    ones = {name: unit_factors(groups)[name] for name in dense.experts}
    slopes = jax.grad(lambda factors: objective(setting, factors, factors))(ones)
    return jax.tree.map(lambda slope: -slope, slopes)


def _drawn(probe, key):
    """Distinct examples of the probe, or all of a smaller one."""
    size = len(probe[0])
    if size <= _EXPERT_EXAMPLES:
        return probe
    # Scores draw by the key itself.
    chosen = jax.random.choice(jax.random.fold_in(key, 1), size, (_EXPERT_EXAMPLES,), replace=False)
    return tuple(part[chosen] for part in probe)
