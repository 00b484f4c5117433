# SPDX-License-Identifier: Apache-2.0
"""Scores: one number per node of every prunable group, larger = keep.

Every score is called ``score(apply, params, groups, probe) -> {name: [size]}`` and ignores what it
does not need of the probe. All are pure and work under jit; none sorts weights. Half-precision
models are evaluated in float32, unless they insist on their own dtype, and scores are float32 or
wider. Where the loss or the outputs are NaN, so are the scores that derive from them.
"""

from plprune.scores.obs import obs
from plprune.scores.probes import Probe
from plprune.scores.saliency import grasp, snip, synflow, taylor
from plprune.scores.tangents import node_lambda_max, ntk_sap
from plprune.scores.weights import group_lasso_norm, magnitude, random

__all__ = [
    "Probe",
    "grasp",
    "group_lasso_norm",
    "magnitude",
    "node_lambda_max",
    "ntk_sap",
    "obs",
    "random",
    "snip",
    "synflow",
    "taylor",
]
