# SPDX-License-Identifier: Apache-2.0
"""Cells in processes of this machine, and on a real Ray cluster where Ray is installed."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import experiments
from experiments.pools import Outcome, Processes, last_line
from plprune.records import read_record

ROOT = Path(experiments.__file__).parents[1]


def test_processes_run_side_by_side_and_are_interrupted_together(tmp_path):
    program = """import sys, time
print('here', flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(3)"""
    pool = Processes(2)
    pool.start("quick", ["-c", program, "0"], tmp_path / "quick.log")
    pool.start("slow", ["-c", program, "60"], tmp_path / "slow.log")
    assert not pool.has_room()
    found = []
    while not found:
        found = pool.ended()
    assert found == [Outcome("quick", 3, "here")]
    while not last_line(tmp_path / "slow.log"):
        pass
    pool.stop()
    assert last_line(tmp_path / "slow.log") == "KeyboardInterrupt"


def real_sweep(folder, *words):
    command = (
        "sweep pl_star surface --preset quick --grid dataset=digits,cifar10 --seeds 1 --set grid=9"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TFDS_DATA_DIR"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments", *command.split(), "--ray", "--out", folder, *words],
        cwd=ROOT, env=environment | {"HOME": str(folder)}, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def standing(folder):
    return list(json.loads((folder / "sweep.json").read_text())["cells"].values())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
def test_a_real_cluster_runs_retries_and_lists(tmp_path):
    folder = tmp_path / "sweep"
    code, said = real_sweep(folder, "--retries", "1")
    digits, cifar = standing(folder)
    assert (digits["state"], digits["attempts"]) == ("done", 1), said
    assert (code, cifar["state"], cifar["attempts"]) == (2, "failed", 2), said
    assert "prepare cifar10" in cifar["said"]
    assert read_record(folder / "dataset=digits" / "surface")[0]["seeds"] == [0]
    real_sweep(folder, "--resume", "--retries", "0")
    assert [cell["attempts"] for cell in standing(folder)] == [1, 3]


def cell(log):
    """The process of a cell, from its number in the log; None where it is gone."""
    number = last_line(log)
    if not number.isdigit():
        return 0
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return None
    return int(number)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends it")
def test_a_cell_does_not_outlive_the_worker_that_started_it(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    )
    program = (
        "import sys; from experiments.pools import attempt; attempt(sys.argv[2:], sys.argv[1])"
    )
    log = tmp_path / "log"
    worker = subprocess.Popen(
        [sys.executable, "-c", program, log, "-m", "endless"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )
    try:
        while not cell(log):
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    deadline = time.monotonic() + 10
    while cell(log) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cell(log) is None
