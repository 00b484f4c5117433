# SPDX-License-Identifier: Apache-2.0
"""The grid of a sweep: parsed from its flags, and taken apart into cells."""

import argparse
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.command_line import (
    PROGRAM,
    Command,
    SweepCommand,
    check_config,
    parse_experiment,
)
from experiments.overrides import alternatives, assignments, changed

MOST = 10_000  # Cells; more is a typing error.


class Cell(NamedTuple):
    """One point of the grid."""

    name: str  # Of its folder.
    settings: dict[str, str]
    command: Command


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(f"{message}; see {PROGRAM} sweep --help.")


def parse_sweep(argv: Sequence[str]) -> SweepCommand:
    """What ``sweep ARGV`` asks for; errors and help as of `experiments.command_line.parse`."""
    parser = _Parser(
        prog=f"{PROGRAM} sweep",
        description="Run an experiment for every point of a grid over its settings, each in a "
        "folder of its own. Failed cells are tried again and listed; --resume goes on with an "
        "interrupted sweep. Every flag of the experiment is taken too and holds for all cells.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="the experiment")
    add("--grid", nargs="+", required=True, metavar="SETTING=VALUES",
        help="values with commas; with semicolons for settings that are lists")  # fmt: skip
    add("--jobs", type=int, default=1, metavar="J", help="cells at a time (default 1)")
    add("--retries", type=int, default=1, metavar="R",
        help="times that a failed cell is tried again (default 1)")  # fmt: skip
    add("--ray", nargs="?", const="", metavar="ADDRESS",
        help="run on a Ray cluster that shares the folder (needs the extra `ray`); a local one "
        "without ADDRESS")  # fmt: skip
    add("--gpus", type=float, default=0.0, metavar="G", help="of each cell, on Ray (default 0)")
    own, rest = parser.parse_known_args(list(argv))
    _check_counts(own)
    base = parse_experiment(own.name, rest)
    if not any(word == "--out" or word.startswith("--out=") for word in rest):
        base = base._replace(out=Path("results") / "sweeps" / base.name / base.preset)
    if base.machine.distributed:
        raise ValueError("a sweep runs its cells in processes of their own: no --distributed.")
    texts = assignments(own.grid)
    grid = {name: alternatives(base.config, name, text) for name, text in texts.items()}
    command = SweepCommand(base, grid, own.jobs, own.retries, own.ray, own.gpus)
    cells(command)
    return command


def cells(command: SweepCommand) -> list[Cell]:
    """Every point of the grid, the last setting varying fastest.

    Raises:
      ValueError: too many cells, or one whose settings cannot be run.
    """
    count = 1
    for values in command.grid.values():
        count *= len(values)
    if count > MOST:
        raise ValueError(f"a grid must have at most {MOST:,} cells, got {count:,}.")
    return [
        _cell(command.base, dict(zip(command.grid, values, strict=True)))
        for values in itertools.product(*command.grid.values())
    ]


def _cell(base, settings):
    name = ",".join(f"{key}={value}" for key, value in settings.items())
    # Two values that differ in other characters alone would share a folder.
    plain = re.sub(r"[^\w.,=+-]", lambda found: f"%{ord(found[0]):02X}", name)
    config = changed(base.config, settings)
    try:
        check_config(base.name, config)
    except ValueError as error:
        raise ValueError(f"cell {name}: {error}") from None
    return Cell(plain, settings, base._replace(config=config, out=base.out / plain))


def _check_counts(own):
    if own.jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {own.jobs}.")
    if own.retries < 0:
        raise ValueError(f"retries must be at least 0, got {own.retries}.")
    if not 0 <= own.gpus < 1000:
        raise ValueError(f"gpus must lie in [0, 1000), got {own.gpus}.")
