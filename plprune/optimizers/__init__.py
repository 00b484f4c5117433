# SPDX-License-Identifier: Apache-2.0
"""Step-size rules and regularisers as optax transformations."""

from plprune.optimizers.adagrad_norm import adagrad_norm_max
from plprune.optimizers.group_lasso import group_lasso, keep_above, node_norms
from plprune.optimizers.measuring import MeasuringState, measured_steps, measuring
from plprune.optimizers.ngn import inverse_root, ngn
from plprune.optimizers.nsgd import nsgd
from plprune.optimizers.sps import dec_sps, sps_max

__all__ = [
    "MeasuringState",
    "adagrad_norm_max",
    "dec_sps",
    "group_lasso",
    "inverse_root",
    "keep_above",
    "measured_steps",
    "measuring",
    "ngn",
    "node_norms",
    "nsgd",
    "sps_max",
]
