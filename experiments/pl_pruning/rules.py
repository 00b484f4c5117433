# SPDX-License-Identifier: Apache-2.0
"""The transformation of each method: what its gates minimise, or which score ranks nodes."""

from typing import Any, NamedTuple

import optax
from jaxtyping import PRNGKeyArray

from experiments.pl_pruning.cases import Case
from experiments.pl_pruning.methods import LEARNED
from experiments.pl_pruning.networks import Dense, node_costs
from experiments.pl_pruning.settings import Config, Regime
from experiments.pl_pruning.subject import Trainer, loss_of
from plprune import scores
from plprune.gating import (
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
from plprune.gating.objectives import Objective

_SCORE_EXAMPLES = 256  # For scores that average over examples: as many as they are published with.
# Times as many updates, over which the temperature falls from 1 to .1.
_ANNEALED = {"kappa_annealed": 10, "kappa_outputs": 3}
_SHARED_BUDGETS = {"kappa_global": "global", "kappa_cost": "cost"}  # By all layers.
# Of gates on all outputs: eigenvalues in the mean, a tenth of them, and the rate of Adam.
_LOWEST, _GATE_RATE = 30, 0.4


class Budget(NamedTuple):
    """What the compiled gating depends on, of the configuration."""

    keep_fraction: float
    probe_size: int
    costs: tuple[tuple[str, float], ...] = ()  # Of one node of each group, where they count.


def budget_of(config: Config, method: str, keep: float, case: Case) -> Budget:
    """The budget of a method at a fraction."""
    costs = node_costs(config.network, case.shape) if method == "kappa_cost" else ()
    return Budget(keep, config.probe_size, costs)


def objective_of(method: str, regime: Regime) -> Objective:
    """What the gates of a method minimise."""
    return {
        "kappa_outputs": lambda: log_condition_number(_LOWEST, num_combinations=None),
        "kappa_risk": lambda: with_risk(log_condition_number(), weight=regime.risk_weight),
        "lipschitz_mu": log_smoothness_ratio,
        "lambda_max_only": log_largest_eigenvalue,
        "trace_only": log_trace,
        "median": log_median_ratio,
    }.get(method, log_condition_number)()


def _learned_options(method, regime, budget: Budget) -> dict[str, Any]:
    updates = regime.initial_updates
    options = {"objective": objective_of(method, regime), "initial_updates": updates}
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


def transformation(
    budget: Budget,
    regime: Regime,
    method: str,
    subject: Trainer,
    dense: Dense,
    inner: optax.GradientTransformation,
    key: PRNGKeyArray,
) -> optax.GradientTransformationExtraArgs:
    """The gated optimiser of a method."""
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
