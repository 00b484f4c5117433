# SPDX-License-Identifier: Apache-2.0
"""What is removed from a folder was looked at under its lock; a run has one identity."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import pytest

import experiments.__main__ as entry
from experiments.run_folder import RunFolder, discard, locked
from experiments.sharding import Devices
from plprune.records import RECORD, provenance, read_record, summarise, write_record

ROOT = Path(entry.__file__).parents[1]
HEADER = {
    "experiment": "toy", "preset": "quick", "config": {"k": 1}, "command": "", "commit": "abc",
    "versions": {"jax": "1"}, "device": "cpu", "seeds": [0], "numerics": {"x64": "True"},
}  # fmt: skip
RESULTS = {"results": summarise({"gd/a": {"x": [1.0]}})}


def main(*words):
    return entry.main([str(word) for word in words])


def complete(folder, **changes):
    write_record(folder, HEADER | RESULTS | changes, {})


@contextmanager
def claim(folder, header=HEADER, tell=pytest.fail, **options):
    """What is kept of a run in `folder`; None where it is complete."""
    with RunFolder(folder, header, **({"resume": True} | options)).under_way(tell) as run:
        yield run and run.kept


def must_run(folder, header, **options):
    return RunFolder(folder, header, **options).must_run()


@pytest.fixture(scope="module")
def where():
    return provenance()


@pytest.fixture
def figures(toy, where, monkeypatch):
    """The toy with two figures; `meanwhile` is what another process does during the first."""
    monkeypatch.setattr("experiments.running.provenance", lambda: where)
    toy("config", FIGURES=("width", "rate"))

    def install(meanwhile):
        once = iter([meanwhile])

        def run(config, figure, *, progress):
            next(once, lambda: None)()
            return toy.run_figure(config, figure, progress=progress)

        toy("run", run=run)

    toy("run", run=toy.run_figure)
    return install


def test_a_run_that_was_completed_since_it_was_looked_at_is_kept(tmp_path):
    assert must_run(tmp_path, HEADER, resume=False, overwrite=False)
    complete(tmp_path)
    before = (tmp_path / RECORD).read_bytes()
    with claim(tmp_path, resume=False) as kept:
        assert kept is None
    assert (tmp_path / RECORD).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.npz", RECORD}


def test_another_run_that_was_completed_since_is_refused_and_kept(tmp_path):
    assert must_run(tmp_path, HEADER, resume=True, overwrite=False)
    complete(tmp_path, config={"k": 2})
    with pytest.raises(ValueError, match="k is 2 there and 1 here"), claim(tmp_path):
        pass
    assert read_record(tmp_path)[0]["config"] == {"k": 2}


def test_state_that_appeared_since_is_not_forgotten(tmp_path, monkeypatch):
    complete(tmp_path)
    (tmp_path / "unfinished").mkdir()  # As a process killed at its very end leaves it.

    def begin_first(folder):  # Another process begins between the look and the lock.
        shutil.rmtree(folder / "unfinished", ignore_errors=True)
        with suppress(KeyboardInterrupt), claim(folder, overwrite=True) as kept:
            kept.once("a", lambda: {"x": 1.0})
            raise KeyboardInterrupt
        return locked(folder)

    monkeypatch.setattr("experiments.run_folder.locked", lambda folder: taken(begin_first, folder))

    def taken(first, folder):
        monkeypatch.undo()
        return first(folder)

    assert not must_run(tmp_path, HEADER, resume=True, overwrite=False)
    assert list((tmp_path / "unfinished").glob("*.npz"))


@pytest.mark.parametrize("overwriting", [False, True])
def test_all_keeps_what_another_process_completes_meanwhile(figures, tmp_path, overwriting):
    words = ["toy", "--out", tmp_path, "--quiet"]
    if overwriting:
        assert main(*words, "--keep", 0.25) == 0
    done = []

    def meanwhile():
        assert main("toy", "rate", *words[1:]) == 0
        done.append((tmp_path / "rate" / RECORD).stat().st_mtime_ns)

    figures(meanwhile)
    assert main(*words, *(["--overwrite"] if overwriting else [])) == 0
    assert (tmp_path / "rate" / RECORD).stat().st_mtime_ns == done[0]
    assert read_record(tmp_path)[0]["config"]["keep"] == 0.5


def test_all_refuses_what_another_process_made_of_another_config(figures, tmp_path, capsys):
    words = ["toy", "--out", tmp_path, "--quiet"]
    figures(lambda: main("toy", "rate", *words[1:], "--keep", 0.25))
    assert main(*words) == 2
    assert "keep is 0.25 there and 0.5 here" in capsys.readouterr().err
    assert read_record(tmp_path / "rate")[0]["config"]["keep"] == 0.25
    assert not (tmp_path / RECORD).exists()


def test_all_merges_nothing_that_was_replaced_meanwhile(figures, toy, tmp_path, capsys):
    assert figures is not None

    def run(config, figure, *, progress):
        if figure == "rate" and config.keep == 0.5:
            words = ("--keep", 0.25, "--overwrite", "--quiet")
            while main("toy", "width", "--out", tmp_path, *words):  # While it is being drawn.
                time.sleep(0.01)
        return toy.run_figure(config, figure, progress=progress)

    toy("run", run=run)
    assert main("toy", "--out", tmp_path, "--quiet") == 2
    assert "width holds a run with another config" in capsys.readouterr().err


def test_all_of_several_folders_are_discarded_or_none(tmp_path):
    for name in "ab":
        complete(tmp_path / name)
    folders = [tmp_path / "a", tmp_path / "b"]
    with locked(tmp_path / "b"), pytest.raises(ValueError, match="another process"):
        discard(folders)
    assert all((folder / RECORD).exists() for folder in folders)
    discard(folders)
    assert not any((folder / RECORD).exists() for folder in folders)


COUNT = """
import sys
from pathlib import Path
from experiments.run_folder import locked

folder, left = Path(sys.argv[1]), 300
print("ready", flush=True)
sys.stdin.readline()
while left:
    try:
        with locked(folder):
            number = int((folder / "count").read_text())
            (folder / "count").write_text(str(number + 1))
        left -= 1
    except ValueError as error:
        assert "another process" in str(error), error
"""


def test_two_processes_never_have_one_folder(tmp_path):
    (tmp_path / "count").write_text("0")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in both] == [0, 0]
    for process in both:
        process.stdin.close()
        process.stdout.close()
    assert (tmp_path / "count").read_text() == "600"


def test_a_link_in_place_of_the_lock_is_not_written_to(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"cannot be written: \.lock"), locked(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def interrupted(toy, folder, *words):
    def run(_, *, progress):
        progress.once("first", lambda: {"x": 1.0})
        raise KeyboardInterrupt

    toy("run", run=run)
    assert main("toy", "--out", folder, "--quiet", *words) == 130
    toy("run", run=toy.run)


CHANGES = {
    "x64": lambda: jax.enable_x64(not jax.config.jax_enable_x64),
    "default_matmul_precision": lambda: jax.default_matmul_precision("highest"),
    "default_prng_impl": lambda: jax.default_prng_impl("rbg"),
    "disable_jit": jax.disable_jit,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_not_resumed_under_another_flag(toy, tmp_path, capsys, name):
    interrupted(toy, tmp_path)
    with CHANGES[name]():
        assert main("toy", "--out", tmp_path, "--resume", "--quiet") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "other flags or devices" in line
    assert name in line
    assert list((tmp_path / "unfinished").glob("*.npz"))
    assert main("toy", "--out", tmp_path, "--resume", "--quiet") == 0


def test_a_run_is_not_resumed_on_another_device_or_number_of_them(
    toy, where, tmp_path, capsys, monkeypatch
):
    interrupted(toy, tmp_path)
    other = where | {"numerics": where["numerics"] | {"device": "gpu H100"}}
    with monkeypatch.context() as patch:
        patch.setattr("experiments.running.provenance", lambda: other)
        assert main("toy", "--out", tmp_path, "--resume", "--quiet") == 2
    assert "device is" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("experiments.sharding.ALONE", Devices(count=4))
        assert main("toy", "--out", tmp_path, "--resume", "--quiet") == 2
    assert "devices is '1' there and '4' here" in capsys.readouterr().err


def test_a_finished_run_of_other_flags_is_shown_by_resume_alone_and_says_so(tmp_path, capsys, toy):
    assert toy is not None
    assert main("toy", "--out", tmp_path, "--quiet") == 0
    with jax.enable_x64(not jax.config.jax_enable_x64):
        assert main("toy", "--out", tmp_path) == 2
        assert "jax_enable_x64" in capsys.readouterr().err
        assert main("toy", "--out", tmp_path, "--resume") == 0
    assert "not of the flags and the device of today" in capsys.readouterr().out


def test_all_takes_no_figure_of_other_flags(figures, tmp_path, capsys):
    assert figures is not None
    assert main("toy", "rate", "--out", tmp_path, "--quiet") == 0
    record, _ = read_record(tmp_path / "rate")
    record["numerics"]["jax_enable_x64"] = "no"
    write_record(tmp_path / "rate", record, {})
    assert main("toy", "all", "--out", tmp_path, "--resume", "--quiet") == 2
    assert "jax_enable_x64 is 'no' there" in capsys.readouterr().err


def test_what_an_older_version_began_is_done_again(tmp_path):
    old = {key: value for key, value in HEADER.items() if key != "numerics"}
    with suppress(KeyboardInterrupt), claim(tmp_path, old) as kept:
        kept.once("a", lambda: {"x": 1.0})
        raise KeyboardInterrupt
    assert must_run(tmp_path, HEADER, resume=True, overwrite=False)
    told = []
    with claim(tmp_path, tell=told.append) as kept:
        assert kept.once("a", lambda: {"x": 2.0})["x"] == 2.0
    assert "belongs to another run" in told[0]


def test_where_a_run_was_begun_is_told_and_recorded(toy, where, tmp_path, capsys, monkeypatch):
    words = ("toy", "--out", tmp_path, "--resume")
    for host in ("first", "second", "third"):
        monkeypatch.setattr("experiments.running.provenance", lambda h=host: where | {"device": h})
        if host != "third":
            interrupted(toy, tmp_path, "--resume")
    assert main(*words) == 0
    assert "begun on device first and is continued at third" in capsys.readouterr().out
    record = read_record(tmp_path)[0]
    assert (record["begun"]["device"], record["device"]) == ("first", "third")
    assert "on first" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("content", ["[]", '{"experiment": "toy", "config": 1, "versions": {}}'])
def test_a_header_of_another_form_is_refused_by_name(tmp_path, content):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        must_run(tmp_path, HEADER, resume=True, overwrite=False)
    (tmp_path / "unfinished" / "run.json").unlink()
    os.mkfifo(tmp_path / "unfinished" / "run.json")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        must_run(tmp_path, HEADER, resume=True, overwrite=False)


def test_a_pipe_in_place_of_a_piece_or_the_log_is_not_waited_for(tmp_path):
    told = []
    with suppress(KeyboardInterrupt), claim(tmp_path) as kept:
        kept.once("a", lambda: {"x": 1.0})
        raise KeyboardInterrupt
    (path,) = (tmp_path / "unfinished").glob("*.npz")
    path.unlink()
    os.mkfifo(path)
    with claim(tmp_path, tell=told.append) as kept:
        assert kept.once("a", lambda: {"x": 2.0})["x"] == 2.0
    assert "must be a regular file" in told[0]
