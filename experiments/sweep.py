# SPDX-License-Identifier: Apache-2.0
"""A sweep: every cell of a grid run, failed ones tried again, all listed.

A cell runs all of its seeds, ``--seeds`` of them, so that seeds need no axis of the grid.
matrix_sensing's figures error and quadratic train them under one `jax.vmap`. The others take them
in turn: on two cores, one vmap over three seeds is 1.0 to 1.3 times as fast, and no seed would have
a time, a last step and checkpoints of its own.

In the sweep's folder every cell has a folder with its record, ``logs/`` holds what the cells said,
``sweep.json`` how each one stands, and ``sweep.csv`` the numbers of all records.
"""

import csv
import dataclasses
import io
import json
import shlex
from collections import Counter, deque
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.command_line import Command, SweepCommand, folder_of, words
from experiments.folders import first_change, locked, normalised
from experiments.grid import Cell, cells
from experiments.pools import Pool, Processes, RayCluster
from plprune.data.files import text
from plprune.records import RECORD, read_record, write_file

STATE, TABLE, LOGS = "sweep.json", "sweep.csv", "logs"
WAITING, DONE, FAILED = "waiting", "done", "failed"
Standing = dict[str, dict[str, Any]]  # Cell -> settings, state, attempts, said.


class CellsFailed(ValueError):
    """Some cells failed every time."""


def carry_out_sweep(command: SweepCommand, console: Console) -> None:
    """Run what is left of the grid, and show how all cells stand.

    Raises:
      ValueError: the folder holds another sweep, or one that must not be gone on with.
      CellsFailed: in one line, after everything else was done.
    """
    base, grid = command.base, cells(command)
    base.out.mkdir(parents=True, exist_ok=True)
    with locked(base.out):
        before = _before(base)
        standing = {cell.name: _standing(cell, before) for cell in grid}
        _write(base, standing)
        left = [cell for cell in grid if standing[cell.name]["state"] != DONE]
        if left:
            (base.out / LOGS).mkdir(exist_ok=True)
            pool = Processes(command.jobs) if command.ray is None else _ray(command)
            try:
                _run(left, standing, pool, command, console)
            finally:
                pool.stop()
                _write(base, standing)
        unread = _write_table(base.out, grid, standing)
    if not base.quiet:
        _show(base.out, grid, standing, console)
    _complain(standing, unread)


def _ray(command):
    return RayCluster(command.ray, command.gpus)


def _before(base: Command) -> Standing:
    """How an earlier sweep in the folder left its cells."""
    path = base.out / STATE
    if base.overwrite or not path.exists():
        foreign = [] if base.overwrite or base.resume else _others(base.out)
        if foreign:
            raise ValueError(
                f"{base.out} is not empty ({foreign[0]}) and holds no sweep: choose another "
                "--out, or --overwrite."
            )
        return {}
    try:
        found = json.loads(text(path))
        command, standing = found["command"], found["cells"]
        states = {name: entry["state"] for name, entry in standing.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); --overwrite starts again.") from None
    if command != words(base):
        raise ValueError(
            f"{base.out} holds a sweep of {command!r:.200}: choose another --out, or --overwrite."
        )
    if not base.resume and set(states.values()) != {DONE}:
        raise ValueError(
            f"{base.out} holds an unfinished sweep: --resume continues it, --overwrite starts "
            "again."
        )
    return standing


def _others(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def _standing(cell, before):
    found = before.get(cell.name, {})
    done = found.get("state") == DONE and (folder_of(cell.command) / RECORD).exists()
    attempts = found.get("attempts")
    return {
        "settings": cell.settings,
        "state": DONE if done else WAITING,
        "attempts": attempts if isinstance(attempts, int) else 0,
        "said": "",
    }


def _run(
    left: list[Cell], standing: Standing, pool: Pool, command: SweepCommand, console: Console
) -> None:
    """Every cell until it is done, or has failed once more than `retries` times."""
    base, waiting, running = command.base, deque(left), {}
    failures = {cell.name: 0 for cell in left}
    while waiting or running:
        while waiting and pool.has_room():
            cell = waiting.popleft()
            standing[cell.name]["attempts"] += 1
            first = failures[cell.name] == 0
            pool.start(cell.name, _words(cell, first=first), base.out / LOGS / f"{cell.name}.log")
            running[cell.name] = cell
        for name, code, said in pool.ended():
            cell = running.pop(name)
            failures[name] += code != 0
            again = code != 0 and failures[name] <= command.retries
            state = WAITING if again else FAILED if code else DONE
            standing[name] |= {"state": state, "said": _reason(code, said) if code else ""}
            _write(base, standing)
            if again:
                waiting.append(cell)
            if not base.quiet:
                _tell(name, again, standing, console)


def _words(cell: Cell, *, first: bool):
    """The process of a cell: an attempt after the first goes on where that one stopped."""
    found = [*shlex.split(words(cell.command))[1:], "--out", str(cell.command.out.absolute())]
    found += ["--overwrite"] if cell.command.overwrite and first else ["--resume"]
    found += ["--quiet", "--save-every", str(cell.command.save_every)]
    if cell.command.machine.devices is not None:
        found += ["--devices", str(cell.command.machine.devices)]
    return [*found, *(["--profile"] if cell.command.profile else [])]


def _reason(code, said):
    told = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{told}: {said}" if said else told


def _tell(name, again, standing, console):
    entry = standing[name]
    done = sum(other["state"] == DONE for other in standing.values())
    state = "failed, and is tried again" if again else entry["state"]
    line = f"{name}: {state} ({done} of {len(standing)} done). {entry['said']}"
    console.print(line.rstrip(), soft_wrap=True, highlight=False, markup=False)


def _write(base, standing):
    content = {"command": words(base), "cells": standing}
    text = json.dumps(content, indent=1) + "\n"
    write_file(base.out / STATE, lambda file: file.write(text.encode()))


def _write_table(folder: Path, grid: list[Cell], standing: Standing) -> list[str]:
    """One line for every metric of every method of every cell that is done.

    Returns:
      What is wrong with records that could not be read, or do not belong with the others.
    """
    done = [cell for cell in grid if standing[cell.name]["state"] == DONE]
    runs, unread = _read(done)
    common = Counter(_flags(record) for _, record in runs if "numerics" in record).most_common(1)
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerow([*grid[0].settings, "method", "metric", "mean", "stderr", "seeds"])
    for cell, record in runs:
        if change := "numerics" in record and first_change(
            dict(_flags(record)), dict(common[0][0])
        ):
            unread.append(_foreign(cell, change))
            continue
        for method, metrics in record["results"].items():
            for metric, entry in metrics.items():
                numbers = [entry["mean"], entry["stderr"], len(entry["values"])]
                table.writerow([*cell.settings.values(), method, metric, *numbers])
    write_file(folder / TABLE, lambda file: file.write(lines.getvalue().encode()))
    return unread


def _read(done):
    """The records of cells, and what is wrong with those that are not theirs."""
    runs, unread = [], []
    for cell in done:
        try:
            record, _ = read_record(folder_of(cell.command))
        except ValueError as error:
            unread.append(str(error))
            continue
        config = normalised(dataclasses.asdict(cell.command.config))
        change = first_change({key: record["config"].get(key) for key in config}, config)
        if change:
            unread.append(_foreign(cell, change))
        else:
            runs.append((cell, record))
    return runs, unread


def _flags(record):
    """What changes numbers, but for the device, in which cells may differ."""
    return tuple(sorted((record["numerics"] | {"device": ""}).items()))


def _foreign(cell, change):
    return f"{folder_of(cell.command)} holds a run that does not belong here ({change})."


def _show(folder, grid, standing, console):
    table = Table(*grid[0].settings, "state", "attempts", "what went wrong")
    for cell in grid:
        entry = standing[cell.name]
        row = [*cell.settings.values(), entry["state"], str(entry["attempts"]), entry["said"]]
        table.add_row(*(Text(word) for word in row))
    console.print(table)
    records = folder_of(grid[0].command._replace(out=folder / "*")) / RECORD
    told = f"Records: {records}; their numbers: {folder / TABLE}"
    console.print(told, soft_wrap=True, highlight=False, markup=False)


def _complain(standing, unread):
    failed = [name for name, entry in standing.items() if entry["state"] == FAILED]
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise CellsFailed(
            f"{len(failed)} of {len(standing)} cells failed: {'; '.join(failed[:3])}{more}. "
            "--resume tries them again."
        )
    if unread:
        raise CellsFailed(
            f"{TABLE} lacks {len(unread)} of {len(standing)} cells: {' '.join(unread[:3])} "
            "Once their folders are removed, --resume runs them again."
        )
