# SPDX-License-Identifier: Apache-2.0
"""Gates learned by the condition number, as an optax transformation."""

from plprune.gating.objectives import (
    Setting,
    log_condition_number,
    log_largest_eigenvalue,
    log_median_ratio,
    log_rank_ratio,
    log_trace,
    log_trace_ratio,
    with_risk,
)
from plprune.gating.one_shot import kappa
from plprune.gating.regularization import Regularized, with_condition
from plprune.gating.relaxations import hard_concrete, sigmoids, straight_through, thresholded
from plprune.gating.schedules import kept_fraction
from plprune.gating.smoothness import log_smoothness_ratio
from plprune.gating.statistics import node_statistics
from plprune.gating.transformation import GatingState, pl_gating, score_gating

__all__ = [
    "GatingState",
    "Regularized",
    "Setting",
    "hard_concrete",
    "kappa",
    "kept_fraction",
    "log_condition_number",
    "log_largest_eigenvalue",
    "log_median_ratio",
    "log_rank_ratio",
    "log_smoothness_ratio",
    "log_trace",
    "log_trace_ratio",
    "node_statistics",
    "pl_gating",
    "score_gating",
    "sigmoids",
    "straight_through",
    "thresholded",
    "with_condition",
    "with_risk",
]
