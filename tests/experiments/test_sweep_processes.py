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
from experiments.sweeping.processes import Outcome, Processes, last_line
from plprune.records import read_record

ROOT = Path(experiments.__file__).parents[1]


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_run_side_by_side_and_are_interrupted_together(tmp_path):
    program = """import sys, time
print('here', flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(3)"""
    logs = [tmp_path / f"{name}.log" for name in ("quick", "slow", "never")]
    pool = Processes(2)
    quick = pool.submit(["-c", program, "0"], logs[0])
    slow = pool.submit(["-c", program, "60"], logs[1])
    assert quick.result(30) == Outcome(3, "here")
    until(lambda: last_line(logs[1]))
    blocking = pool.submit(["-c", program, "60"], logs[0])
    until(lambda: logs[0].read_text().count("here") == 2)
    never = pool.submit(["-c", program, "60"], logs[2])
    pool.stop()
    assert {running.result(0).said for running in (slow, blocking)} == {"KeyboardInterrupt"}
    assert never.cancelled()
    assert not logs[2].exists()


def real_sweep(folder, *words):
    command = "sweep pl_star surface --grid dataset=digits,cifar10 --seeds 1"
    environment = {k: v for k, v in os.environ.items() if k != "TFDS_DATA_DIR"}
    options = ["--ray", "--out", folder, *words]
    done = subprocess.run(
        [sys.executable, "-m", "experiments", *command.split(), *options],
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
    endless = """import os, time
from experiments.interruption import listen
listen()
print(os.getpid(), flush=True)
time.sleep(600)"""
    program = """import sys
from experiments.sweeping.processes import attempt
attempt(["-c", sys.argv[2]], sys.argv[1])"""
    log = tmp_path / "log"
    worker = subprocess.Popen([sys.executable, "-c", program, log, endless], cwd=ROOT)
    try:
        until(lambda: cell(log))
    finally:
        worker.kill()
        worker.wait()
    until(lambda: cell(log) is None, 10)
