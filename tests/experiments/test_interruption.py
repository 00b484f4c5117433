# SPDX-License-Identifier: Apache-2.0
"""A run that is killed at any moment and resumed gives the record of one that was left alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import experiments.__main__ as entry
from plprune.records import provenance, read_record, same_record

ROOT = Path(entry.__file__).parents[1]


class Killed(BaseException):
    """Stands for a process that is gone: nothing catches it."""


def main(*words):
    return entry.main([str(word) for word in words])


pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def whole(tmp_path, monkeypatch):
    where = provenance()  # Once: asking git takes longer than all of the rest.
    monkeypatch.setattr("experiments.running.provenance", lambda: where)
    assert main("toy", "--out", tmp_path / "whole", "--quiet") == 0
    return read_record(tmp_path / "whole")


def die_at(monkeypatch, moment, *, before):
    """Every file is written, renamed and removed by these: die at one of their calls."""
    calls = iter(range(10**6))

    def dying(original):
        def call(*args, **kwargs):
            now = next(calls) == moment
            if now and before:
                raise Killed
            result = original(*args, **kwargs)
            if now:
                raise Killed
            return result

        return call

    operations = (os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink")
    for owner, name in (*operations, (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))


# The dead close nothing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("overwriting", [False, True])
def test_killed_at_any_file_operation_the_resumed_record_is_the_same(
    whole, tmp_path, monkeypatch, overwriting
):
    died = 0
    for moment in range(0, 200, 2 if overwriting else 1):
        folder = tmp_path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        words = ("toy", "--out", folder, "--quiet")
        if overwriting:  # The old run is of another config.
            shutil.copytree(tmp_path / "whole", folder)
            words = (*words, "--keep", 0.25)
        with monkeypatch.context() as patch:
            die_at(patch, moment, before=moment % 2 == 0)
            try:
                main(*words, *(["--overwrite"] if overwriting else []))
            except Killed:
                died += 1
            else:
                break
        if overwriting:
            code = main(*words, "--resume")
            if code == 2:  # Killed before anything was touched: the old run is whole.
                assert same_record(read_record(folder), whole)
                assert main(*words, "--overwrite") == 0
            assert read_record(folder)[0]["config"]["keep"] == 0.25
        else:
            assert main(*words, "--resume") == 0
            assert same_record(read_record(folder), whole)
        assert {p.name for p in folder.iterdir()} <= {
            "record.json", "metrics.npz", "report.html", ".lock", "log.jsonl", "tensorboard"
        }  # fmt: skip
    assert died > 20


@pytest.mark.parametrize("overwriting", [False, True])
def test_killed_while_running_all_figures(toy, tmp_path, monkeypatch, overwriting):
    where = provenance()
    monkeypatch.setattr("experiments.running.provenance", lambda: where)
    toy("config", FIGURES=("width", "rate"))
    toy("run", run=toy.run_figure)
    options = ("--keep", 0.25, "--quiet") if overwriting else ("--quiet",)
    assert main("toy", *options, "--out", tmp_path / "whole") == 0
    whole = read_record(tmp_path / "whole")
    assert main("toy", "--quiet", "--out", tmp_path / "old") == 0
    for moment in (0, 10, 20, 30, 40, 50, 60):
        folder = tmp_path / f"cut {moment}"
        if overwriting:
            shutil.copytree(tmp_path / "old", folder)
        words = ("toy", *options, "--out", folder)
        with monkeypatch.context() as patch, suppress(Killed):
            die_at(patch, moment, before=True)
            main(*words, *(["--overwrite"] if overwriting else []))
        if main(*words, "--resume") == 2:  # Before every old run was removed: refused, not mixed.
            assert overwriting
            assert moment <= 20
            assert main(*words, "--overwrite") == 0
        assert same_record(read_record(folder), whole)
        assert same_record(read_record(folder / "rate"), read_record(tmp_path / "whole" / "rate"))


SLOW = """
import sys, time
import conftest, pytest
import experiments
from experiments.__main__ import main

with pytest.MonkeyPatch.context() as patch:
    toy = conftest.toy.__wrapped__(patch)
    piece = conftest.piece
    conftest.piece = lambda *args: (time.sleep(0.2), piece(*args))[1]
    main(["toy", "--out", sys.argv[1], "--quiet"])
"""


def test_killed_by_the_system_and_resumed(whole, tmp_path):
    folder = tmp_path / "cut"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    # The precision belongs to the run: this process, which resumes it, has the same.
    environment = {**os.environ, "PYTHONPATH": path, "JAX_ENABLE_X64": "1"}
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(folder)], env=environment)
    parts = folder / "unfinished"
    for _ in range(600):
        if len(list(parts.glob("*.npz"))) >= 3 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(list(parts.glob("*.npz"))) < 6
    assert main("toy", "--out", folder, "--resume", "--quiet") == 0
    assert same_record(read_record(folder), whole)
