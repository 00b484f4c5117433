# SPDX-License-Identifier: Apache-2.0
"""Progress for people: bars on a terminal, lines elsewhere; the same work in each."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.progress import Progress
from experiments.resuming import as_arrays
from experiments.screen import COMPILED, LOWERED, Overall, on_screen


class Terminal:
    """A console into a string, and what is on it."""

    def __init__(self, *, is_terminal=True):
        self.stream = io.StringIO()
        self.console = Console(
            file=self.stream, force_terminal=is_terminal, width=140, legacy_windows=False
        )

    def text(self):
        return self.stream.getvalue()


def told(*, is_terminal, steps=3):
    terminal = Terminal(is_terminal=is_terminal)
    with on_screen(terminal.console) as screen:
        progress = Progress(None, screen)
        with progress.task("gd/[kappa], seed 0", total=3) as task:
            for _ in range(steps):
                task.advance(1, loss=0.125, kappa=1e-7)
            task.advance(0)
            screen.bars.refresh()
        assert progress.once("a", lambda: {"x": 1})["x"] == 1
    return terminal.text()


def test_a_log_gets_one_line_per_task():
    (line,) = told(is_terminal=False, steps=2).splitlines()
    assert line.startswith("gd/[kappa], seed 0: 2 of 3 in")
    assert line.endswith("loss 0.125, kappa 1e-07")
    assert "/s" in line


def test_a_terminal_gets_a_bar_with_rate_and_numbers():
    text = told(is_terminal=True)
    for part in ("gd/[kappa], seed 0", "3 of 3,", "/s", "loss 0.125", "━", "3 of 3 in"):
        assert part in text


def test_no_bar_stands_at_zero():
    terminal = Terminal()
    with on_screen(terminal.console) as screen, screen.task("a", total=3) as bar:
        screen.bars.refresh()
        assert screen.bars.tasks[0].total is None  # It pulses.
        assert "starting ... 0 s" in terminal.text()
        screen.compiling.hear(LOWERED, 0.1)
        screen.bars.refresh()
        assert "compiling ... 0 s" in terminal.text()
        bar.advance(1)
        screen.compiling.hear(COMPILED, 0.1)
        screen.bars.refresh()
        assert bar.left().startswith("1 of 3, ")
        assert bar.left().endswith("left")
    assert "0 of 3" not in terminal.text()


def test_it_is_told_while_jax_compiles():
    seen = []

    @jax.jit
    def function(x):
        jax.debug.callback(lambda: seen.append(screen.compiling.since))
        return x + 1

    with on_screen(Terminal().console) as screen:
        lowered = function.lower(1.0)
        assert screen.compiling.since is not None
        lowered.compile()
        assert screen.compiling.since is None
        jax.block_until_ready(function(1.0))
    assert seen == [None]
    jax.jit(lambda x: x - 1).lower(1.0)
    assert screen.compiling.since is None  # It hears no more.


def test_the_bar_of_all_pieces_counts_those_that_were_found_but_not_their_time(monkeypatch):
    clock = iter(range(60, 10_000, 60))
    monkeypatch.setattr("experiments.screen.time.monotonic", lambda: next(clock))
    overall = Overall(16, start=0)
    overall.finished(anew=False)
    assert overall.left() == "1 of 16, 60 s"
    overall.finished(anew=True)
    assert (overall.done, overall.left()) == (2, "2 of 16, about 28 min left")


def test_a_terminal_shows_how_many_are_done_of_all():
    terminal = Terminal()
    with on_screen(terminal.console) as screen:
        progress = Progress(None, screen)
        progress.plan(16)
        for i in range(3):
            progress.once(str(i), lambda: {})
        screen.bars.refresh()
    assert "3 of 16, about 0 s left" in terminal.text()


def test_of_several_figures_the_upper_bar_counts_them():
    terminal = Terminal()
    with on_screen(terminal.console, 8) as screen:
        Progress(None, screen).plan(100)
        Progress(None, screen).once("a", lambda: {})
        screen.figure_finished(anew=True)
        screen.bars.refresh()
    assert "1 of 8, about" in terminal.text()
    assert "100" not in terminal.text()


def test_pieces_become_arrays_and_none_becomes_nan():
    found = Progress().once("a", lambda: {"x": None, "y": [1, 2], "z": np.float32(1)})
    assert np.isnan(found["x"])
    assert found["y"].tolist() == [1, 2]
    assert found["z"].dtype == np.float32
    with pytest.raises(ValueError, match="'x' must be numbers"):
        as_arrays({"x": "text"})
    with pytest.raises(ValueError, match="'x' must be numbers"):
        as_arrays({"x": {}})
