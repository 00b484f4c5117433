# SPDX-License-Identifier: Apache-2.0
"""The alpha-beta-condition and its relatives, from numbers recorded along a training run."""

from plprune.conditions.frontier import (
    Frontier,
    Pair,
    alpha_beta_frontier,
    noise_factor,
    smallest_beta,
    smallest_pair,
    worst_margins,
)
from plprune.conditions.points import Points, points_at
from plprune.conditions.quantities import aiming_cosine, aiming_ratio, pl_ratio, quasar_ratio
from plprune.conditions.recording import (
    RecordingState,
    Records,
    Replay,
    batch_losses,
    recorded,
    recording,
    replay,
)

__all__ = [
    "Frontier",
    "Pair",
    "Points",
    "RecordingState",
    "Records",
    "Replay",
    "aiming_cosine",
    "aiming_ratio",
    "alpha_beta_frontier",
    "batch_losses",
    "noise_factor",
    "pl_ratio",
    "points_at",
    "quasar_ratio",
    "recorded",
    "recording",
    "replay",
    "smallest_beta",
    "smallest_pair",
    "worst_margins",
]
