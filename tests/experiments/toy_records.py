# SPDX-License-Identifier: Apache-2.0
"""Records of the toy experiment of conftest.py, written without a run."""

import numpy as np

from plprune.records import summarise, write_record


def write_toy(folder, **changes):
    seeds = changes.get("seeds", [0, 1])
    curve = np.exp(-np.arange(8.0)) * np.ones((len(seeds), 1))
    results = {f"gd/{m}": {"kappa": [3.0, 5.0], "test_accuracy": [0.9, 0.92]} for m in "ab"}
    record = {
        "experiment": "toy", "preset": "quick", "config": {"scale": "Small."},
        "command": "python -m experiments toy --preset quick", "versions": {"jax": "1"},
        "commit": None, "device": "cpu", "seeds": seeds, "results": summarise(results),
    }  # fmt: skip
    write_record(folder, record | changes, {f"gd/{m}/train_loss": curve for m in "ab"})
    return folder
