# SPDX-License-Identifier: Apache-2.0
"""Records of pl_pruning with numbers made by hand, as its figures and words read them."""

import dataclasses
from dataclasses import replace

import numpy as np

from experiments.pl_pruning.config import PRESETS
from experiments.run_folder import normalised
from plprune.records import summarise

_, SGD = PRESETS["quick"].regimes
ONCE = replace(SGD, max_steps=100, period=0, freeze_at=0)
PLAIN = replace(
    PRESETS["quick"], methods=("dense", "kappa", "random"), regimes=(ONCE,), keep=(0.5, 0.25),
    track=3, log_every=25,
)  # fmt: skip


def record_of(config, results):
    return {
        "config": normalised(dataclasses.asdict(config)), "results": summarise(results),
        "command": "python", "versions": {},
    }  # fmt: skip


def entry(**metrics):
    usual = {"test_accuracy": [0.5, 0.7], "kappa": [4.0, 6.0], "train_loss": [0.2, 0.3],
             "test_loss": [0.6, 0.9], "steps_to_target": [40, 60]}  # fmt: skip
    return usual | metrics


def curve_of(name, losses, steps, **others):
    """Of two seeds."""
    rows = np.asarray(losses, float) * np.ones((2, 1))
    found = {"train_loss": rows, "step": np.tile(steps, (2, 1))} | others
    return {f"{name}/{key}": np.asarray(values) for key, values in found.items()}


def regime_of(record):
    return record["config"]["regimes"][0]
