# SPDX-License-Identifier: Apache-2.0
"""What surrounds a command: terminals, pipes and signals. Nothing of it loses a run."""

import gc
import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.table import Table

import experiments.__main__ as entry
from experiments import interruption
from experiments.screen import PlainConsole
from plprune.records import read_record

ROOT = Path(entry.__file__).parents[1]
PATHS = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
# The toy as a program: what WORK says is done in each of its pieces.
PROGRAM = """
import gc, os, sys, time
import conftest, pytest
from experiments.__main__ import _main
from experiments.interruption import leave, listen

toy = conftest.toy.__wrapped__(pytest.MonkeyPatch())
piece, work = conftest.piece, compile(os.environ.get("WORK", ""), "work", "exec")
conftest.piece = lambda *args: (exec(work), piece(*args))[1]
listen()
leave(_main(sys.argv[1:]))
"""


def start(*words, work="", **environment):
    env = {**os.environ, "PYTHONPATH": PATHS, "WORK": work, **environment}
    command = [sys.executable, "-c", PROGRAM, "toy", *map(os.fspath, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def main(*words):
    return entry.main([os.fspath(word) for word in words])


def started(folder, process):
    """Until the first piece of a run is begun."""
    for _ in range(1200):
        if (folder / "begun").exists() or process.poll() is not None:
            return
        time.sleep(0.025)


SLOW_TO_SAVE = """
try:
    open('{0}/begun', 'w')
    time.sleep(5)
finally:
    time.sleep({1})
"""


def test_signals_and_pipes_of_whole_processes(tmp_path):
    """At once, because starting a process takes most of the time."""
    for name in ("quick", "stuck", "pipe"):
        (tmp_path / name).mkdir()
    running = {
        name: start(
            "--out", tmp_path / name, "--resume", work=work.format(tmp_path / name, seconds)
        )
        for name, work, seconds in (("quick", SLOW_TO_SAVE, 0.1), ("stuck", SLOW_TO_SAVE, 60))
    }
    reader = start("--out", tmp_path / "pipe", work="time.sleep(0.2)")
    assert b"gd/dense" in reader.stdout.readline()
    reader.stdout.close()
    for name, process in running.items():
        started(tmp_path / name, process)
        first = time.monotonic()
        # The end of a process is no time for a traceback either.
        while process.poll() is None and time.monotonic() < first + 0.8 * interruption.SAME:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
    time.sleep(0.4 * interruption.SAME)
    running["stuck"].send_signal(signal.SIGINT)
    for name, process in running.items():
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, name
        assert b"Traceback" not in said, name
        assert said.count(b"interrupted; what was finished is in") == (name == "quick"), name
    assert reader.wait(60) == 141
    assert reader.stderr.read() == b""
    reader.stderr.close()


def test_a_terminal_without_letters_shows_what_it_can(tmp_path):
    folder = tmp_path / "r\udce9sultats [bold]é"  # As Python names what is not UTF-8.
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("--out", folder, **plain, PYTHONCOERCECLOCALE="0")
    shown, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    assert b"\\xb1" in shown  # Plus or minus.
    assert shown.isascii()
    assert b"sultats [bold]" in shown.splitlines()[-1]
    (found,) = tmp_path.iterdir()
    assert read_record(found)[0]["experiment"] == "toy"


def test_words_in_brackets_are_no_markup(toy, tmp_path, capsys):
    assert toy is not None
    folder = tmp_path / "[bold] [/red] :smile:"
    assert main("toy", "--out", folder) == 0
    assert "report: " + str(folder) in capsys.readouterr().out
    assert main("report", folder) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    console = PlainConsole()
    console.print(Table("[/x]"))
    assert "[/x]" in capsys.readouterr().out


class Full(io.TextIOBase):
    """A stream whose reader is gone, or whose disk is full."""

    def __init__(self, error):
        self.error = error

    def write(self, _):
        raise self.error

    flush = lambda self: self.write("")  # noqa: E731


@pytest.mark.parametrize(
    ("error", "code"), [(BrokenPipeError(32, "Broken pipe"), 2), (OSError(28, "No space"), 2)]
)
def test_output_that_cannot_be_written_is_one_line(monkeypatch, capsys, error, code):
    monkeypatch.setattr(sys, "stdout", Full(error))
    assert main("--help") == code
    assert capsys.readouterr().err.startswith("experiments: [Errno")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_streams_that_are_closed_are_no_reason_to_fail(toy, monkeypatch, tmp_path, name):
    assert toy is not None
    monkeypatch.setattr(sys, name, None)
    assert main("toy", "--out", tmp_path) == 0
    assert main("toy", "--keep", "7") == 2
    getattr(sys, name).close()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_reader_that_is_gone_ends_a_command_without_a_word(monkeypatch, capsys, at_once):
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb", buffering=0 if at_once else -1) as pipe:
        stream = io.TextIOWrapper(pipe, write_through=at_once)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main("--help") == 141
        stream.detach()
    assert capsys.readouterr().err == ""


def test_signals_and_hooks_are_given_back(toy, tmp_path):
    def found():
        numbers = (*interruption.SIGNALS, signal.SIGALRM)
        return [signal.getsignal(number) for number in numbers], sys.unraisablehook

    before, during = found(), []
    toy("run", run=lambda *_, **__: during.append(found()) or {}["no"])
    assert main("toy", "--out", tmp_path, "--quiet") == 1
    assert found() == before
    assert all(a is not b for a, b in zip(during[0][0], before[0], strict=True))


def test_a_job_that_was_started_deaf_stays_so(toy, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        toy("run", run=lambda *_, **__: os.kill(os.getpid(), signal.SIGINT) or {}["no"])
        assert main("toy", "--out", tmp_path, "--quiet") == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert monkeypatch is not None


@pytest.mark.parametrize("swallow", ["destructor", "callback", "library"])
def test_an_interruption_that_was_swallowed_comes_again(toy, tmp_path, capsys, swallow):
    class Thing:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def run(_, *, progress):
        if swallow == "destructor":
            Thing()
        elif swallow == "callback":
            gc.callbacks.append(lambda *_: gc.callbacks.pop() and Thing.__del__(None))
            gc.collect()
        else:
            with suppress(BaseException):
                Thing.__del__(None)
            progress.once("next", lambda: pytest.fail("must not be begun"))
        time.sleep(10)

    toy("run", run=run)
    start = time.monotonic()
    assert main("toy", "--out", tmp_path, "--quiet") == 130
    assert time.monotonic() - start < 5
    assert "interrupted; what was finished" in capsys.readouterr().err


def test_what_an_interruption_became_in_a_library_is_one(toy, tmp_path, capsys):
    def run(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except KeyboardInterrupt:
            raise RuntimeError("INTERNAL") from None

    toy("run", run=run)
    assert main("toy", "--out", tmp_path, "--quiet") == 130
    assert "interrupted" in capsys.readouterr().err


def test_other_threads_leave_signals_alone(toy, tmp_path):
    assert toy is not None
    codes = []
    thread = threading.Thread(
        target=lambda: codes.append(main("toy", "--out", tmp_path, "--quiet"))
    )
    thread.start()
    thread.join()
    assert codes == [0]
