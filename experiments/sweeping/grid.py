# SPDX-License-Identifier: Apache-2.0
"""The grid of a sweep: parsed from its flags, and taken apart into cells."""

import dataclasses
import itertools
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import cli
from experiments.cli import PROGRAM, TOOLS, Command, check, configured, words_of
from experiments.parsing import changed, flags, read_some

MOST = 10_000  # Cells; more is a typing error.
ABOUT = f"""{TOOLS["sweep"]}

{PROGRAM} sweep NAME [FIGURE] --grid keep=0.25,0.5 regimes.0.batch-size=32,64 --jobs 2

Each cell has a folder of its own. Failed cells are tried again and listed; --resume goes on with an
interrupted sweep. Every flag of the experiment is taken too and holds for all cells."""


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What a sweep takes besides the flags of its experiment, which hold for all cells."""

    # SETTING=VALUES: with commas, or with semicolons for settings that are lists.
    grid: list[str] = dataclasses.field(default_factory=list)
    jobs: int = 1  # Cells at a time.
    retries: int = 1  # Times that a failed cell is tried again.
    ray: str | None = None  # A Ray cluster that shares the folder; of this machine if no ADDRESS.
    gpus: float = 0.0  # Of each cell, on Ray.


class Cell(NamedTuple):
    """One point of the grid."""

    name: str  # Of its folder.
    settings: dict[str, str]
    command: Command

    def words(self, *, first: bool) -> list[str]:
        """Of its process: an attempt after the first goes on where that one stopped."""
        options = self.command.options
        out = str(options.out and options.out.absolute())
        found = [*shlex.split(words_of(self.command))[1:], "--out", out, "--quiet"]
        found += ["--overwrite"] if options.overwrite and first else ["--resume"]
        found += ["--save-every", str(options.save_every)]
        if options.devices is not None:
            found += ["--devices", str(options.devices)]
        found += ["--profile"] if options.profile else []
        return found if options.compilation_cache else [*found, "--no-compilation-cache"]


class Sweep(NamedTuple):
    """One experiment at every point of a grid."""

    base: Command
    grid: dict[str, list[str]]  # Setting -> values, in words.
    cells: list[Cell]
    options: SweepOptions

    @property
    def out(self) -> Path:
        """The sweep's folder."""
        base = self.base
        return base.options.out or Path("results") / "sweeps" / base.name / base.options.preset


def parse(words: Sequence[str]) -> Sweep:
    """What ``sweep WORDS`` asks for; errors and help as of `experiments.cli.parse`."""
    known = _with_address(list(words))
    options, rest = read_some(f"{PROGRAM} sweep", ABOUT, known, SweepOptions)
    if not rest or rest[0].startswith("-"):
        raise ValueError(f"sweep needs the name of an experiment; see {PROGRAM} sweep --help.")
    _check(options)
    base = cli.parse(rest[0], rest[1:])
    if base.options.distributed:
        raise ValueError("a sweep runs its cells in processes of their own: no --distributed.")
    grid = _axes(base, options.grid)
    sweep = Sweep(base, {name: [*values] for name, values in grid.items()}, [], options)
    return sweep._replace(cells=_cells(sweep, grid))


def _with_address(words):
    """``--ray`` alone is a cluster of this machine."""
    place = words.index("--ray") + 1 if "--ray" in words else len(words)
    alone = place == len(words) or words[place].startswith("--")
    return [*words[:place], "local", *words[place:]] if "--ray" in words and alone else words


def _check(options):
    if not options.grid:
        raise ValueError("sweep needs --grid SETTING=VALUE,...")
    if options.jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {options.jobs}.")
    if options.retries < 0:
        raise ValueError(f"retries must be at least 0, got {options.retries}.")
    if not 0 <= options.gpus < 1000:
        raise ValueError(f"gpus must lie in [0, 1000), got {options.gpus}.")


def _axes(base: Command, words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Setting -> the values of its axis, as words and as what they mean."""
    usual, grid = dict(flags(base.config)), {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.replace("_", "-")
        if not equals or not name:
            raise ValueError(f"a grid must be SETTING=VALUE,..., got {word!r}.")
        if name in grid:
            raise ValueError(f"{name} is set twice.")
        if name not in usual:
            raise ValueError(f"there is no setting {name!r}; there are {', '.join(usual)}.")
        parts = [part.strip() for part in text.split(";" if _is_list(usual[name]) else ",")]
        if "" in parts or len(set(parts)) < len(parts):
            raise ValueError(f"values of {name} must be given once each, got {text!r}.")
        grid[name] = parts
    if math.prod(map(len, grid.values())) > MOST:
        count = math.prod(map(len, grid.values()))
        raise ValueError(f"a grid must have at most {MOST:,} cells, got {count:,}.")
    return {name: {p: _value(base, name, p) for p in parts} for name, parts in grid.items()}


def _is_list(value):
    return isinstance(value, tuple)


def _value(base, name, part):
    """What a word means as a setting; read by itself, so that a grid is the sum of its axes."""
    return dict(flags(configured(base, [f"--{name}={part}"])))[name]


def _cells(sweep, grid) -> list[Cell]:
    """Every point of the grid, the last setting varying fastest."""
    points = itertools.product(*(values.items() for values in grid.values()))
    return [_cell(sweep, dict(zip(grid, point, strict=True))) for point in points]


def _cell(sweep, point):
    settings = {name: part for name, (part, _) in point.items()}
    name = ",".join(f"{key}={part}" for key, part in settings.items())
    # Two values that differ in other characters alone would share a folder.
    plain = re.sub(r"[^\w.,=+-]", lambda found: f"%{ord(found[0]):02X}", name)
    config = changed(sweep.base.config, {key: value for key, (_, value) in point.items()})
    try:
        check(sweep.base.name, cli.settings(sweep.base.name), config)
    except ValueError as error:
        raise ValueError(f"cell {name}: {error}") from None
    options = dataclasses.replace(sweep.base.options, out=sweep.out / plain)
    return Cell(plain, settings, sweep.base._replace(config=config, options=options))
