# SPDX-License-Identifier: Apache-2.0
"""Progress: bars on a terminal, lines elsewhere, nothing when quiet; the same work in each."""

import io

import numpy as np
import pytest
from rich.console import Console

from experiments.keeping import InMemory, as_arrays
from experiments.progress import reporting


def told(*, terminal, quiet=False, steps=3):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=140, legacy_windows=False)
    with reporting(console, quiet=quiet) as progress:
        with progress.task("gd/[kappa], seed 0", total=3) as task:
            for _ in range(steps):
                task.advance(1, loss=0.125, kappa=1e-7)
            task.advance(0)
        assert progress.once("a", lambda: {"x": 1})["x"] == 1
    return stream.getvalue()


def test_a_log_gets_one_line_per_task():
    (line,) = told(terminal=False, steps=2).splitlines()
    assert line.startswith("gd/[kappa], seed 0: 2 of 3 in")
    assert line.endswith("loss 0.125, kappa 1e-07")
    assert "/s" in line


def test_a_terminal_gets_a_bar_with_rate_and_numbers():
    text = told(terminal=True)
    for part in ("gd/[kappa], seed 0", "0/3", "/s", "loss 0.125", "━", "3 of 3 in"):
        assert part in text


def test_quiet_is_quiet():
    assert told(terminal=True, quiet=True) == told(terminal=False, quiet=True) == ""


def test_pieces_become_arrays_and_none_becomes_nan():
    found = InMemory().once("a", lambda: {"x": None, "y": [1, 2], "z": np.float32(1)})
    assert np.isnan(found["x"])
    assert found["y"].tolist() == [1, 2]
    assert found["z"].dtype == np.float32
    with pytest.raises(ValueError, match="'x' must be numbers"):
        as_arrays({"x": "text"})
    with pytest.raises(ValueError, match="'x' must be numbers"):
        as_arrays({"x": {}})
