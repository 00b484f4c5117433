# SPDX-License-Identifier: Apache-2.0
"""A sweep: every cell of a grid run, failed ones tried again, all listed.

A cell runs all of its seeds, ``--seeds`` of them, so that seeds need no axis of the grid.
matrix_sensing's figures error and quadratic train them under one `jax.vmap`. The others take them
in turn: on two cores, one vmap over three seeds is 1.0 to 1.3 times as fast, and no seed would have
a time, a last step and checkpoints of its own.

In the sweep's folder every cell has a folder with its record, ``logs/`` holds what the cells said,
``sweep.json`` how each one stands, and ``sweep.csv`` the numbers of all records.
"""

import json
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.cli import words_of
from experiments.run_folder import locked
from experiments.sweeping.grid import Cell, Sweep, parse
from experiments.sweeping.processes import Cluster, Pool, Processes
from experiments.sweeping.table import TABLE, write_table
from plprune.data.files import text
from plprune.records import RECORD, write_file

__all__ = ["CellsFailed", "carry_out", "parse"]

STATE, LOGS = "sweep.json", "logs"
WAITING, DONE, FAILED = "waiting", "done", "failed"
Standing = dict[str, dict[str, Any]]  # Cell -> settings, state, attempts, said.


class CellsFailed(ValueError):
    """Some cells failed every time."""


def carry_out(sweep: Sweep, console: Console) -> None:
    """Run what is left of the grid, and show how all cells stand.

    Raises:
      ValueError: the folder holds another sweep, or one that must not be gone on with.
      CellsFailed: in one line, after everything else was done.
    """
    folder, grid = sweep.out, sweep.cells
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        before = _before(sweep)
        standing = {cell.name: _standing(cell, before) for cell in grid}
        _write(sweep, standing)
        left = [cell for cell in grid if standing[cell.name]["state"] != DONE]
        if left:
            (folder / LOGS).mkdir(exist_ok=True)
            pool = _pool(sweep)
            try:
                _run(left, standing, pool, sweep, console)
            finally:
                pool.stop()
                _write(sweep, standing)
        done = [cell for cell in grid if standing[cell.name]["state"] == DONE]
        unread = write_table(folder, done, [*sweep.grid])
    if not sweep.base.options.quiet:
        _show(sweep, standing, console)
    _complain(standing, unread)


def _pool(sweep) -> Pool:
    options = sweep.options
    if options.ray is None:
        return Processes(options.jobs)
    return Cluster(options.ray, options.gpus)


def _before(sweep: Sweep) -> Standing:
    """How an earlier sweep in the folder left its cells."""
    folder, options = sweep.out, sweep.base.options
    path = folder / STATE
    if options.overwrite or not path.exists():
        foreign = sorted(found.name for found in folder.iterdir() if found.name != ".lock")
        if foreign and not (options.overwrite or options.resume):
            raise ValueError(
                f"{folder} is not empty ({foreign[0]}) and holds no sweep: choose another "
                "--out, or --overwrite."
            )
        return {}
    try:
        found = json.loads(text(path))
        command, standing = found["command"], found["cells"]
        states = {name: entry["state"] for name, entry in standing.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); --overwrite starts again.") from None
    if command != words_of(sweep.base):
        raise ValueError(
            f"{folder} holds a sweep of {command!r:.200}: choose another --out, or --overwrite."
        )
    if not options.resume and set(states.values()) != {DONE}:
        raise ValueError(
            f"{folder} holds an unfinished sweep: --resume continues it, --overwrite starts again."
        )
    return standing


def _standing(cell, before):
    found = before.get(cell.name, {})
    done = found.get("state") == DONE and (cell.command.out / RECORD).exists()
    attempts = found.get("attempts")
    return {
        "settings": cell.settings,
        "state": DONE if done else WAITING,
        "attempts": attempts if isinstance(attempts, int) else 0,
        "said": "",
    }


def _run(left: list[Cell], standing: Standing, pool: Pool, sweep: Sweep, console: Console) -> None:
    """Every cell until it is done, or has failed once more than `retries` times."""
    failures = {cell.name: 0 for cell in left}

    def submit(cell):
        log = sweep.out / LOGS / f"{cell.name}.log"
        return pool.submit(cell.words(first=not failures[cell.name]), log)

    running = {submit(cell): cell for cell in left}
    while running:
        over, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in over:
            cell = running.pop(future)
            code, said = _outcome(future)
            failures[cell.name] += code != 0
            again = code != 0 and failures[cell.name] <= sweep.options.retries
            entry = standing[cell.name]
            entry["state"] = WAITING if again else FAILED if code else DONE
            entry["said"] = _reason(code, said) if code else ""
            entry["attempts"] += 1
            _write(sweep, standing)
            if again:
                running[submit(cell)] = cell
            if not sweep.base.options.quiet:
                _tell(cell.name, again, standing, console)


def _outcome(future):
    try:
        return future.result()
    except Exception as error:  # The machine is gone, or Ray's worker.
        return 1, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _reason(code, said):
    told = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{told}: {said}" if said else told


def _tell(name, again, standing, console):
    entry = standing[name]
    done = sum(other["state"] == DONE for other in standing.values())
    state = "failed, and is tried again" if again else entry["state"]
    line = f"{name}: {state} ({done} of {len(standing)} done). {entry['said']}"
    console.print(line.rstrip(), soft_wrap=True, highlight=False, markup=False)


def _write(sweep, standing):
    content = {"command": words_of(sweep.base), "cells": standing}
    lines = json.dumps(content, indent=1) + "\n"
    write_file(sweep.out / STATE, lambda file: file.write(lines.encode()))


def _show(sweep, standing, console):
    table = Table(*sweep.grid, "state", "attempts", "what went wrong")
    for cell in sweep.cells:
        entry = standing[cell.name]
        row = [*cell.settings.values(), entry["state"], str(entry["attempts"]), entry["said"]]
        table.add_row(*(Text(word) for word in row))
    console.print(table)
    told = f"Records: in {sweep.out}; their numbers: {sweep.out / TABLE}"
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
