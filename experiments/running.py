# SPDX-License-Identifier: Apache-2.0
"""One command carried out: folder, run, record, figures, report, table."""

import dataclasses
import time
from collections.abc import Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from rich.console import Console

import experiments
from experiments import devices
from experiments.command_line import ALL, Command, folder_of, settings, words
from experiments.folders import (
    check_same,
    continued,
    discard,
    first_change,
    must_run,
    normalised,
    under_way,
)
from experiments.progress import reporting
from experiments.report import is_drawn, show, write_report
from experiments.watching import Log, Logged, logged, profiled, spent
from plprune.records import Record, provenance, read_record, summarise, write_record

LOGGED = ("experiment", "preset", "command", "versions", "commit", "device", "seeds")
Run = tuple[Record, dict[str, np.ndarray]]


def carry_out(command: Command, console: Console) -> None:
    """Run the experiment on its devices, or show what its folder already holds.

    Raises:
      ValueError: where the folder holds anything that must not be replaced.
    """
    figures = getattr(settings(command.name), "FIGURES", ())
    with devices.joined(command.machine):
        if not devices.writes():
            command = command._replace(quiet=True)
        if command.figure == ALL:
            _all(command, figures, console)
        else:
            _one(command._replace(out=folder_of(command)), console)


def _all(command, figures, console):
    """Every figure in a folder of its own, and one record of them all above."""
    folder, where = command.out, provenance()
    header = _header(command, where)
    each = {figure: command._replace(figure=figure, out=folder / figure) for figure in figures}
    headers = {figure: _header(one, where) for figure, one in each.items()}
    if _must_run(command, header, inner=figures):
        for figure in figures:  # All are checked before the first is run.
            _must_run(each[figure], headers[figure], alike=True)
        options = _options(command) | {"tell": console.print, "inner": figures}
        with under_way(folder, header, **options) as kept:
            if kept is not None:
                _run_all(command, each, headers, kept, console)
    _show(command, header, console)


def _run_all(command, each, headers, kept, console):
    if command.overwrite:
        if devices.writes():
            discard(one.out for one in each.values())
        # What another process does there from now on is not to be replaced.
        each = {k: one._replace(overwrite=False, resume=True) for k, one in each.items()}
    for figure, one in each.items():
        _run(one, headers[figure], console, alike=True)
    if devices.writes():
        runs = [read_record(one.out) for one in each.values()]
        for (record, _), (figure, one) in zip(runs, each.items(), strict=True):
            check_same(one.out, headers[figure], record)
            kept.header = continued(kept.header, record)
        write_record(command.out, *_merged(kept.header, each, runs))
        write_report(command.out)


def _one(command, console):
    """One figure, or an experiment that has none of its own names."""
    header = _header(command, provenance())
    if _must_run(command, header):
        _run(command, header, console)
    _show(command, header, console)


def _options(command):
    return {"resume": command.resume, "overwrite": command.overwrite}


def _must_run(command, header, **options):
    return must_run(command.out, header, **_options(command), **options)


def _run(command, header, console, *, alike=False):
    module = import_module(f"{experiments.EXPERIMENTS[command.name]}.run")
    figure = [] if command.figure is None else [command.figure]
    start = time.perf_counter()
    with _kept(command, header, console, alike) as (kept, log):
        if kept is None:
            return
        with (
            reporting(console, quiet=command.quiet, kept=kept) as shown,
            profiled(command.out, on=command.profile and devices.writes()),
        ):
            progress = Logged(shown, log) if log else shown
            results, curves = module.run(command.config, *figure, progress=progress)
        arrays = {key: np.asarray(curve) for key, curve in curves.items()}
        if devices.writes():
            write_record(command.out, kept.header | {"results": summarise(results)}, arrays)
            write_report(command.out)
    if not command.quiet:
        console.print(spent(time.perf_counter() - start), highlight=False)


@contextmanager
def _kept(command, header, console, alike):
    """What survives the process, and the log, which only the process that writes has.

    None where there is nothing left to do.
    """
    options = _options(command) | {"save_every": command.save_every, "alike": alike}
    lines: list[str] = []
    logs: list[Log] = []

    def tell(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)
        logs[0].write("told", text=text) if logs else lines.append(text)

    with under_way(command.out, header, **options, tell=tell) as kept:
        if kept is None or not devices.writes():
            yield kept, None
            return
        with logged(command.out, **{key: header[key] for key in LOGGED}) as log:
            logs.append(log)
            for text in lines:
                log.write("told", text=text)
            yield kept, log


def _header(command: Command, where: Mapping[str, Any]) -> dict[str, Any]:
    """The record to come, without its results; `where` is its provenance."""
    config = normalised(dataclasses.asdict(command.config))
    module = import_module(f"{experiments.EXPERIMENTS[command.name]}.run")
    figures = getattr(settings(command.name), "FIGURES", ())
    figure = [None if command.figure == ALL else command.figure] if figures else []
    extra = module.versions(command.config, *figure) if hasattr(module, "versions") else {}
    return {
        "experiment": command.name,
        "preset": command.preset,
        "config": config | ({} if command.figure is None else {"figure": command.figure}),
        "command": words(command),
        "versions": where["versions"] | extra,
        "commit": where["commit"],
        "device": where["device"],
        "numerics": where["numerics"] | {"devices": str(devices.count())},
        "seeds": list(range(command.config.seed, command.config.seed + command.config.seeds)),
    }


def _merged(header, figures, runs) -> Run:
    """One record with all methods of all figures; ValueError where two give the same number."""
    results: dict[str, dict[str, Any]] = {}
    curves: dict[str, np.ndarray] = {}
    for figure, (record, arrays) in zip(figures, runs, strict=True):
        for method, entries in record["results"].items():
            twice = entries.keys() & results.setdefault(method, {}).keys()
            if twice:
                raise ValueError(f"figure {figure} repeats {method}/{min(twice)}.")
            results[method] |= entries
        twice = arrays.keys() & curves.keys()
        if twice:
            raise ValueError(f"figure {figure} repeats the curve {min(twice)}.")
        curves |= arrays
    return header | {"results": results}, curves


def _show(command: Command, header: Mapping[str, Any], console: Console) -> None:
    if not devices.writes():
        return
    if not is_drawn(command.out):
        write_report(command.out)
    if not command.quiet:
        record = read_record(command.out)[0]
        show(record, console)
        change = first_change(record.get("numerics"), header["numerics"])
        if change:
            told = f"These numbers are not of the flags and the device of today: {change}."
            console.print(told, soft_wrap=True, highlight=False, markup=False)
        told = f"Record, figures and report: {command.out}"
        console.print(told, soft_wrap=True, highlight=False, markup=False)
