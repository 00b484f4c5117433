# SPDX-License-Identifier: Apache-2.0
"""How each method chooses the nodes to keep, before training or during its first steps."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pl_pruning import controls
from experiments.pl_pruning.cases import Case
from experiments.pl_pruning.experts import expert_scores, expert_slopes
from experiments.pl_pruning.methods import CONTROLS, LEARNED
from experiments.pl_pruning.networks import Dense, node_costs
from experiments.pl_pruning.settings import Config, Regime
from experiments.pl_pruning.subject import (
    State,
    Trainer,
    calibrated,
    is_full_batch,
    loss_of,
    optimizer,
)
from experiments.pl_pruning.timing import timed
from plprune import scores
from plprune.gating import (
    GatingState,
    hard_concrete,
    log_condition_number,
    log_largest_eigenvalue,
    log_median_ratio,
    log_smoothness_ratio,
    log_trace,
    pl_gating,
    score_gating,
    thresholded,
    with_risk,
)
from plprune.nodes import keep_top, mask
from plprune.training import TrainInfo, make_step, start

_SCORE_EXAMPLES = 256  # For scores that average over examples: as many as they are published with.
# Times as many updates, over which the temperature falls from 1 to .1.
_ANNEALED = {"kappa_annealed": 10, "kappa_outputs": 3}
_SHARED_BUDGETS = {"kappa_global": "global", "kappa_cost": "cost"}  # By all layers.
# Of gates on all outputs: eigenvalues in the mean, a tenth of them, and the rate of Adam.
_LOWEST, _GATE_RATE = 30, 0.4


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


def choose(
    config: Config, regime: Regime, method: str, keep: float, rate: float, case: Case
) -> Choice:
    """Gate before training, or while the first `regime.freeze_at` steps are taken.

    Args:
      config: The experiment.
      regime: Says which of the two.
      method: One of `methods.METHODS`.
      keep: The fraction of nodes to keep.
      rate: Learning rate of the steps.
      case: The seed's data, dense network and keys.
    """
    if method in CONTROLS:
        return _control(config, regime, method, keep, rate, case)
    if regime.period:
        return _while_training(config, regime, method, keep, rate, case)
    if method == "dense":
        return _untrained(case, case.params, all_open(case.dense), 0.0)
    budget = _budget(config, method, keep, case)
    gate = _gate_once(budget, regime, method, case.subject, case.dense)
    probe = case.data.inputs, _labels(regime, case)
    (params, kept), seconds = timed(gate, case.gating_key, case.params, case.state.model, probe)
    return _untrained(case, params, _concrete(kept), seconds)


def all_open(dense: Dense) -> dict[str, np.ndarray]:
    """Every node of the groups that may lose some."""
    return {name: np.ones(size, bool) for name, size in dense.sizes.items()}


def kept_share(keep: dict[str, np.ndarray]) -> float:
    """The fraction of all prunable nodes that is kept."""
    return sum(int(k.sum()) for k in keep.values()) / sum(len(k) for k in keep.values())


def _untrained(case, params, keep, seconds):
    return Choice(params, case.state.model, keep, None, None, np.zeros(0), seconds, seconds)


def _concrete(keep):
    return {name: np.asarray(kept) for name, kept in keep.items()}


def _control(config, regime, method, keep, rate, case: Case) -> Choice:
    """What `methods.CONTROLS` says of each."""

    def chosen(rule, case=case):
        return choose(config, regime, rule, keep, rate, case)

    if method == "fresh":
        return _untrained(case, *controls.fresh(config.network, keep, case), 0.0)
    rule, _, how = method.rpartition("_")
    if how == "small":
        return chosen(rule, _halved(case))
    if how in ("tapered", "flared"):
        return _at_shares(rule, case, controls.shares(keep, case, how), 0.0)
    if how == "widths":
        widths = chosen("kappa_global")
        shares = {name: float(kept.mean()) for name, kept in widths.keep.items()}
        return _at_shares(rule, case, shares, widths.seconds)
    base, model = chosen(rule), chosen("kappa")
    params = controls.matched(config.network, base, model, case)
    return base._replace(params=params, seconds=model.seconds, gating_seconds=model.seconds)


def _halved(case: Case) -> Case:
    params = controls.halved(case.params)
    model = calibrated(case.subject, params, case.state.model, case.data)
    return case._replace(params=params, state=case.state._replace(model=model))


def _at_shares(rule, case, shares: dict[str, float], seconds: float) -> Choice:
    """The nodes of the largest score, a given share of each group."""
    score, keep = getattr(scores, rule), {}
    apply = case.subject.net.model.apply
    found = score(apply, case.params, case.dense.groups, key=case.gating_key)
    for name, share in shares.items():
        keep |= keep_top({name: found[name]}, case.dense.groups, share)
    params = mask(case.params, case.dense.groups, keep)
    return _untrained(case, params, _concrete(keep), seconds)


class _Budget(NamedTuple):
    """What the compiled gating depends on, of the configuration."""

    keep_fraction: float
    probe_size: int
    costs: tuple[tuple[str, float], ...] = ()  # Of one node of each group, where they count.


def _budget(config, method, keep, case: Case) -> _Budget:
    costs = node_costs(config.network, case.shape) if method == "kappa_cost" else ()
    return _Budget(keep, config.probe_size, costs)


def _labels(regime, case):
    """Targets of the probe; a centred regime fits them from the initial outputs on."""
    if not regime.centred:
        return case.data.targets
    return case.data.targets + case.subject.net.model.apply(
        case.params, case.state.model, case.data.inputs
    )


def _objective(method, regime):
    return {
        "kappa_outputs": lambda: log_condition_number(_LOWEST, num_combinations=None),
        "kappa_risk": lambda: with_risk(log_condition_number(), weight=regime.risk_weight),
        "lipschitz_mu": log_smoothness_ratio,
        "lambda_max_only": log_largest_eigenvalue,
        "trace_only": log_trace,
        "median": log_median_ratio,
    }.get(method, log_condition_number)()


def _learned_options(method, regime, budget: _Budget) -> dict[str, Any]:
    updates = regime.initial_updates
    options = {"objective": _objective(method, regime), "initial_updates": updates}
    if method == "kappa_mlp":
        options["network"] = "mlp"
    if method in _SHARED_BUDGETS:
        shared = _SHARED_BUDGETS[method]
        options |= {"budget": shared, "min_fraction": budget.keep_fraction / 2}
    if method == "kappa_cost":
        options["node_costs"] = dict(budget.costs)
    if method == "kappa_hard_concrete":
        options["relaxation"] = hard_concrete()
    if method == "kappa_outputs":
        options["probe_size"] = budget.probe_size // 2
        options["gate_optimizer"] = optax.adam(_GATE_RATE)
    if method in _ANNEALED:
        updates *= _ANNEALED[method]
        falling = optax.linear_schedule(1.0, 0.1, updates)
        options |= {"relaxation": thresholded(falling), "initial_updates": updates}
    return options


def _transformation(budget, regime, method, subject, dense: Dense, inner, key):
    """The gated optimiser of a method; plain `inner` for dense."""
    options: dict[str, Any] = {
        "keep_fraction": budget.keep_fraction, "probe_size": budget.probe_size,
        "exclude": tuple(name for name in dense.groups.prunable if name not in dense.sizes),
        "loss": loss_of(regime), "key": key,
    }  # fmt: skip
    if regime.period:
        options |= {"period": regime.period, "freeze_at": regime.freeze_at}
        options["schedule"] = regime.schedule
    apply = subject.net.model.apply
    if method in LEARNED:
        options |= _learned_options(method, regime, budget)
        return pl_gating(inner, apply, dense.groups, **options)
    if method in ("snip", "grasp", "taylor"):
        options["probe_size"] = max(_SCORE_EXAMPLES, budget.probe_size)
    score = getattr(scores, method)
    return score_gating(inner, apply, dense.groups, score=score, **options)


@cache
def _gate_once(budget, regime, method, subject, dense: Dense) -> Callable:
    """(key, params, state, probe) -> (params, keep): the transformation's first call."""

    def gate(key, params, state, probe):
        inner = optax.identity()
        rule = _transformation(budget, regime, method, subject, dense, inner, key)
        zeros, first = optax.tree.zeros_like(params), rule.init(params)
        updates, after = rule.update(zeros, first, params, probe=probe, model_state=state)
        params, keep = optax.apply_updates(params, updates), after.keep
        if dense.experts:
            found = _ranked_experts(method, regime, subject, dense, (params, state), probe, key)
            routed = keep_top(found, dense.groups, budget.keep_fraction)
            params, keep = mask(params, dense.groups, routed), keep | routed
        return params, keep

    return jax.jit(gate)


def _ranked_experts(method, regime, *rest):
    if method in LEARNED:
        return expert_slopes(_objective(method, regime), *rest)
    return expert_scores(getattr(scores, method), *rest)


def _while_training(config, regime, method, keep, rate, case: Case) -> Choice:
    data = case.data.inputs, case.data.targets
    arguments = case.gating_key, case.params, case.state, data, case.indices, rate
    budget = _budget(config, method, keep, case)
    plain = _warm_up(budget, regime, "dense", case.subject, case.dense)
    (last, kept, info, open_share), plain_seconds = timed(plain, *arguments)
    seconds = plain_seconds
    if method != "dense":
        gated = _warm_up(budget, regime, method, case.subject, case.dense)
        (last, kept, info, open_share), seconds = timed(gated, *arguments)
    kept = _concrete(kept) if method != "dense" else all_open(case.dense)
    gating = max(0.0, seconds - plain_seconds)
    model = last.state.model
    return Choice(
        last.params, model, kept, last.opt_state, info, np.asarray(open_share), seconds, gating
    )


@cache
def _warm_up(budget, regime, method, subject: Trainer, dense: Dense) -> Callable:
    """The first `freeze_at` steps: (key, params, state, data, indices, rate) to their end."""

    def run(key, params, state: State, data, indices, rate):
        rule = inner = optimizer(regime, rate)
        if method != "dense":
            rule = _transformation(budget, regime, method, subject, dense, inner, key)
        step = make_step(subject.train, subject.train_loss, rule)

        def logged(train_state, chosen):
            full = is_full_batch(regime)
            batch = data if full else jax.tree.map(lambda a: a[chosen], data)
            probe = {"probe": data, "model_state": train_state.state.model}
            moved, info = step(train_state, batch, **({} if method == "dense" else probe))
            return moved, (info, _open_share(moved.opt_state))

        first = start(params, state, rule, key=key)
        last, (info, opened) = jax.lax.scan(logged, first, indices[: regime.freeze_at])
        gating = last.opt_state
        if method == "dense":
            return last, {}, info, opened
        return last._replace(opt_state=gating.inner), gating.keep, info, opened

    return jax.jit(run)


def _open_share(state):
    if not isinstance(state, GatingState):
        return jnp.ones(())
    return jnp.mean(jnp.concatenate(list(state.keep.values())))
