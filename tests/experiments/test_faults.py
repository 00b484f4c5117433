# SPDX-License-Identifier: Apache-2.0
"""Loops in a run: killed at random moments, checkpoints damaged, the disk full: the same record."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import spread_toy

import experiments.__main__ as entry
from plprune.records import provenance, read_record, same_record

pytestmark = pytest.mark.usefixtures("toy")
HERE = Path(__file__).parent
ROOT = Path(entry.__file__).parents[1]
# Those of ours and of orbax, which works in threads of its own.
OPERATIONS = [
    (os, "fsync"), (os, "rename"), (os, "replace"), (os, "unlink"), (os, "remove"), (os, "mkdir"),
    (os, "rmdir"), (Path, "write_text"), (shutil, "rmtree"),
]  # fmt: skip


class Killed(BaseException):
    """Stands for a process that is gone: whatever it still tries fails."""


def main(folder, *words):
    flags = ["--seeds", "1", "--quiet", "--save-every", "0", "--out", str(folder)]
    return entry.main(["toy", *flags, *words])


@pytest.fixture(scope="module")
def where():
    return provenance()  # Once: asking git takes longer than most of the rest.


@pytest.fixture
def ready(toy, where, monkeypatch):
    monkeypatch.setattr("experiments.running.provenance", lambda: where)
    toy("run", run=spread_toy.run_until(-1))
    return toy


@pytest.fixture
def whole(ready, tmp_path):
    assert ready is not None
    assert main(tmp_path / "whole") == 0
    return read_record(tmp_path / "whole")


@contextmanager
def dying(moment, *, after=False):
    """Die at one call of `OPERATIONS`, in whichever thread; yields how many there were."""
    count, dead = [0], []

    def deadly(original):
        def call(*args, **kwargs):
            if dead:
                raise Killed
            now, count[0] = count[0] == moment, count[0] + 1
            if not now:
                return original(*args, **kwargs)
            if after:
                original(*args, **kwargs)
            dead.append(True)
            raise Killed

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            patch.setattr(owner, name, deadly(getattr(owner, name)))
        yield count


def test_killed_at_thirty_random_moments_the_resumed_record_is_the_same(whole, tmp_path):
    with dying(-1) as count:
        assert main(tmp_path / "counted") == 0
    assert count[0] > 50
    chance = random.Random(0)
    died = 0
    for moment in chance.sample(range(count[0]), 30):
        folder = tmp_path / f"cut {moment}"
        try:
            with dying(moment, after=chance.random() < 0.5):
                main(folder)
        except Killed:
            died += 1
        assert main(folder, "--resume") == 0, moment
        assert same_record(read_record(folder), whole), moment
        assert not (folder / "unfinished").exists()
        shutil.rmtree(folder)
    assert died >= 25  # The last operations come when the record is complete.


def interrupted(toy, folder, *, stop):
    toy("run", run=spread_toy.run_until(stop))
    assert main(folder) == 130
    toy("run", run=spread_toy.run_until(-1))


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(ready, whole, tmp_path, capsys):
    interrupted(ready, tmp_path / "cut", stop=2)
    newest = max((tmp_path / "cut" / "unfinished").glob("*.steps/[0-9]*"))
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    refused = 0
    for i, path in enumerate(files):
        folder = shutil.copytree(tmp_path / "cut", tmp_path / "copy")
        damaged = folder / path.relative_to(tmp_path / "cut")
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1 + i
        damaged.write_bytes(content)
        assert main(folder, "--resume") == 0
        # What orbax reads twice or never may change, a number of the run may not.
        assert same_record(read_record(folder), whole)
        told = capsys.readouterr().out
        refused += "a checkpoint of train/0 is refused" in told
        shutil.rmtree(folder)
    assert refused >= 3


def test_a_checkpoint_of_another_run_is_refused_by_name(ready, whole, tmp_path, capsys):
    interrupted(ready, tmp_path / "cut", stop=2)
    (loop,) = (tmp_path / "cut" / "unfinished").glob("*.steps")
    ready("run", run=spread_toy.run_until(1))
    assert main(tmp_path / "other", "--keep", "0.25") == 130
    ready("run", run=spread_toy.run_until(-1))
    (foreign,) = (tmp_path / "other" / "unfinished").glob("*.steps")
    assert foreign.name == loop.name
    shutil.rmtree(loop)
    shutil.copytree(foreign, loop)
    assert main(tmp_path / "cut", "--resume") == 0
    assert "train/0 is refused: step 3 belongs to another run" in capsys.readouterr().out
    assert same_record(read_record(tmp_path / "cut"), whole)


def test_a_disk_that_fills_up_loses_no_checkpoint_and_no_result(ready, whole, tmp_path, capsys):
    folder = tmp_path / "cut"
    interrupted(ready, folder, stop=2)
    before = sorted((folder / "unfinished").glob("*.steps/*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def run(config, *, progress):
        # The system refuses every longer file, orbax's and ours.
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
        return spread_toy.run_until(-1)(config, progress=progress)

    ready("run", run=run)
    try:
        code = main(folder, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    ready("run", run=spread_toy.run_until(-1))
    told = capsys.readouterr()
    assert code == 2
    assert "could not be saved" in told.out
    assert f"what was finished is in {folder}, and --resume" in told.err
    assert set(before) <= set((folder / "unfinished").glob("*.steps/*"))
    assert main(folder, "--resume") == 0
    assert same_record(read_record(folder), whole)


def test_killed_by_the_system_inside_a_loop_and_resumed(whole, tmp_path):
    folder, seen = tmp_path / "cut", set()
    path = os.pathsep.join([str(ROOT), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": path, "SPREAD_TOY_SLEEP": "0.4"}
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "spread_toy.py"), "-1", "--seeds", "1", "--resume",
             "--out", str(folder)],
            env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(1200):
            found = {path.name for path in folder.glob("unfinished/*.steps/[0-9]*")}
            if found - seen or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        seen |= found
    assert len(seen) >= 2
    assert main(folder, "--resume") == 0
    assert same_record(read_record(folder), whole)
