# SPDX-License-Identifier: Apache-2.0
"""Scores: one number per node of every prunable group, larger = keep.

Every score is called ``score(apply, params, groups, probe) -> {name: [size]}`` and ignores what it
does not need of the probe. All are pure and work under jit; none sorts weights. Half-precision
models are evaluated in float32, unless they insist on their own dtype, and scores are float32 or
wider. Where the loss or the outputs are NaN, so are the scores that derive from them. `SCORES` has
them all by name; `streamed` takes those that are means over examples batch by batch.
"""

from collections.abc import Mapping
from types import MappingProxyType

from plprune.scores.activations import activation
from plprune.scores.obs import obs
from plprune.scores.probes import Probe
from plprune.scores.running import Score
from plprune.scores.saliency import grasp, snip, synflow, taylor
from plprune.scores.streaming import streamed
from plprune.scores.tangents import node_lambda_max, ntk_sap
from plprune.scores.weights import group_lasso_norm, magnitude, random

SCORES: Mapping[str, Score] = MappingProxyType(
    {
        score.__name__: score
        for score in (
            activation,
            grasp,
            group_lasso_norm,
            magnitude,
            node_lambda_max,
            ntk_sap,
            obs,
            random,
            snip,
            synflow,
            taylor,
        )
    }
)

__all__ = [
    "SCORES",
    "Probe",
    "activation",
    "grasp",
    "group_lasso_norm",
    "magnitude",
    "node_lambda_max",
    "ntk_sap",
    "obs",
    "random",
    "snip",
    "streamed",
    "synflow",
    "taylor",
]
