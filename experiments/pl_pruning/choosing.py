# SPDX-License-Identifier: Apache-2.0
"""How each method chooses the nodes to keep, before training or during its first steps."""

from collections.abc import Callable
from functools import cache

import jax
import numpy as np
import optax

from experiments.pl_pruning import controls
from experiments.pl_pruning.cases import Case, Choice, all_open
from experiments.pl_pruning.experts import expert_scores, expert_slopes
from experiments.pl_pruning.methods import CONTROLS, LEARNED
from experiments.pl_pruning.networks import Dense
from experiments.pl_pruning.rules import budget_of, objective_of, transformation
from experiments.pl_pruning.settings import Config, Regime
from experiments.pl_pruning.subject import calibrated
from experiments.pl_pruning.timing import timed
from experiments.pl_pruning.while_training import gate_while_training
from plprune import scores
from plprune.nodes import keep_top, mask


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
        return gate_while_training(config, regime, method, keep, rate, case)
    if method == "dense":
        return _untrained(case, case.params, all_open(case.dense), 0.0)
    budget = budget_of(config, method, keep, case)
    gate = _gate_once(budget, regime, method, case.subject, case.dense)
    probe = case.data.inputs, _labels(regime, case)
    (params, kept), seconds = timed(gate, case.gating_key, case.params, case.state.model, probe)
    return _untrained(case, params, jax.device_get(kept), seconds)


def kept_share(keep: dict[str, np.ndarray]) -> float:
    """The fraction of all prunable nodes that is kept."""
    return sum(int(k.sum()) for k in keep.values()) / sum(len(k) for k in keep.values())


def _untrained(case, params, keep, seconds):
    return Choice(params, case.state.model, keep, None, None, np.zeros(0), seconds, seconds)


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
    found = score(apply, case.params, case.dense.groups, scores.Probe(key=case.gating_key))
    for name, share in shares.items():
        keep |= keep_top({name: found[name]}, case.dense.groups, share)
    params = mask(case.params, case.dense.groups, keep)
    return _untrained(case, params, jax.device_get(keep), seconds)


def _labels(regime, case):
    """Targets of the probe; a centred regime fits them from the initial outputs on."""
    if not regime.centred:
        return case.data.targets
    return case.data.targets + case.subject.net.model.apply(
        case.params, case.state.model, case.data.inputs
    )


@cache
def _gate_once(budget, regime, method, subject, dense: Dense) -> Callable:
    """(key, params, state, probe) -> (params, keep): the transformation's first call."""

    def gate(key, params, state, probe):
        inner = optax.identity()
        rule = transformation(budget, regime, method, subject, dense, inner, key)
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
        return expert_slopes(objective_of(method, regime), *rest)
    return expert_scores(getattr(scores, method), *rest)
