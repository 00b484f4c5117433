# SPDX-License-Identifier: Apache-2.0
"""Experiments at toy size on the devices of a run; also a program.

``python spread_runs.py FILE DEVICES`` leaves their numbers in FILE, once an interrupted and resumed
run has given the same bits. With ``COORDINATOR PROCESS`` behind, it is one of two processes, and
process 0 writes.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import sharding
from experiments.alpha_beta import config as alpha_beta
from experiments.alpha_beta import run as alpha_beta_run
from experiments.cli import RunOptions
from experiments.pl_pruning import config as pruning
from experiments.pl_pruning import run as pruning_run
from experiments.pl_pruning import training
from experiments.pl_pruning.settings import network
from experiments.pl_star import config as star
from experiments.pl_star import run as star_run
from experiments.progress import Progress
from experiments.resuming import Kept

QUICK = pruning.PRESETS["quick"]
_, SGD = QUICK.regimes
PRUNING = replace(
    QUICK,
    network=network("mlp", hidden=(4, 4), activation="tanh"),
    methods=("kappa",),
    regimes=(
        replace(
            SGD, train_examples=64, batch_size=16, max_steps=20, rates=(0.3,), target=0.1,
            period=0, freeze_at=0, initial_updates=2,
        ),
    ),
    seeds=1, log_every=5, held_out=8, probe_size=16, track=0, curve_examples=64,
)  # fmt: skip
STAR = replace(
    star.PRESETS["quick"], seeds=1, examples=4, steps=6, checks=2, widths=(8,)
)  # fmt: skip
ALPHA_BETA = replace(
    alpha_beta.PRESETS["quick"], seeds=1, examples=64, epochs=2, widths=(8,), first_width=8,
    batch=16,
)  # fmt: skip


def numbers(found):
    """Results and curves, flat; without times."""
    results, curves = found
    flat = {f"{method}/{k}": v for method, one in results.items() for k, v in one.items()}
    flat = {k: np.asarray([np.nan if x is None else x for x in v]) for k, v in flat.items()}
    flat |= {f"curve {k}": np.asarray(v) for k, v in curves.items()}
    return {k: v for k, v in flat.items() if not k.endswith("_seconds")}


def pruned(kept=None):
    with jax.numpy_rank_promotion("allow"):
        return numbers(pruning_run.run(PRUNING, progress=Progress(kept)))


def everything():
    """What can be spread; all of pl_pruning, and a figure of each of the others."""
    with jax.numpy_rank_promotion("allow"):
        star_found = numbers(star_run.run(STAR, "eigenvalue", progress=Progress()))
        alpha = numbers(alpha_beta_run.run(ALPHA_BETA, "width", progress=Progress()))
    parts = {"pl_pruning": pruned(), "pl_star": star_found, "alpha_beta": alpha}
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def resume(found):
    """An interrupted and resumed `pruned` gives the same bits."""
    stretch, calls = training._stretch, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stretch(*arguments)

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(training, "_stretch", dying)
        with pytest.raises(KeyboardInterrupt):
            pruned(Kept(Path(folder), "run", pytest.fail, save_every=0.0))
        again = pruned(Kept(Path(folder), "run", pytest.fail, save_every=0.0))
    assert len(calls) == 4 + 1, "an interruption lost more than a stretch"
    for name, values in again.items():
        np.testing.assert_array_equal(values, found[f"pl_pruning/{name}"], err_msg=name)


def main(file, count, coordinator=None, process=None):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    options = RunOptions(devices=int(count))
    if coordinator is not None:
        several = {"distributed": True, "coordinator": coordinator, "processes": 2}
        options = replace(options, **several, process=int(process))
    with sharding.joined(options) as devices:
        assert devices.count == sharding.count() == int(count)
        found = everything()
        resume(found)
        if devices.writes:
            np.savez(file, allow_pickle=False, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
