# SPDX-License-Identifier: Apache-2.0
"""One command carried out: folder, run, record, figures, report, table."""

import dataclasses
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

import experiments
from experiments.cli import ALL, Command, settings, words_of
from experiments.progress import Progress
from experiments.report import is_drawn, show, write_report
from experiments.resuming import Kept
from experiments.run_folder import (
    RunFolder,
    check_same,
    continued,
    discard,
    first_change,
    normalised,
)
from experiments.run_log import Log, logged, profiled, spent
from experiments.screen import Screen, on_screen
from experiments.sharding import Devices, joined
from plprune.compilation.persistent import enable_compilation_cache
from plprune.records import provenance, read_record, summarise, write_record

LOGGED = ("experiment", "preset", "command", "versions", "commit", "device", "seeds")


class Run(NamedTuple):
    """One figure, or an experiment that has none of its own names, in its folder."""

    command: Command
    devices: Devices
    console: Console
    folder: RunFolder


def carry_out(command: Command, console: Console) -> None:
    """Run the experiment on its devices, or show what its folder already holds.

    Raises:
      ValueError: where the folder holds anything that must not be replaced.
    """
    with joined(command.options) as devices:
        if not devices.writes:
            options = dataclasses.replace(command.options, quiet=True)
            command = command._replace(options=options)
        if command.options.compilation_cache:
            _keep_compiled(console)
        where = provenance()
        if command.figure == ALL:
            _all(command, where, devices, console)
            return
        run = _run_of(command, where, devices, console)
        if run.folder.must_run():
            with _on_screen(run, 1) as screen:
                _run(run, screen)
        _show(run)


def _run_of(command, where, devices, console, **options):
    """A run and its folder; `where` is the provenance of its record to come."""
    options = {"resume": command.options.resume, "overwrite": command.options.overwrite} | options
    header = _header(command, where, devices)
    return Run(command, devices, console, RunFolder(command.out, header, devices, **options))


def _all(command, where, devices, console):
    """Every figure in a folder of its own, and one record of them all above."""
    figures = settings(command.name).FIGURES
    whole = _run_of(command, where, devices, console, inner=figures)
    each = {
        figure: _run_of(command._replace(figure=figure), where, devices, console, alike=True)
        for figure in figures
    }
    if whole.folder.must_run():
        for one in each.values():  # All are checked before the first is run.
            one.folder.must_run()
        with whole.folder.under_way(console.print) as begun:
            if begun is not None:
                with _on_screen(whole, len(each)) as screen:
                    _run_all(whole, each, screen, begun.header)
    _show(whole)


def _run_all(whole, each, screen, header):
    if whole.folder.overwrite:
        if whole.devices.writes:
            discard(one.folder.path for one in each.values())
        # What another process does there from now on is not to be replaced.
        each = {
            figure: one._replace(folder=one.folder._replace(overwrite=False, resume=True))
            for figure, one in each.items()
        }
    for one in each.values():
        anew = _run(one, screen)
        if screen is not None:
            screen.figure_finished(anew=anew)
    if whole.devices.writes:
        found = {figure: read_record(one.folder.path) for figure, one in each.items()}
        for figure, (record, _) in found.items():
            check_same(each[figure].folder.path, each[figure].folder.header, record)
            header = continued(header, record)
        write_record(whole.folder.path, *_merged(header, found))
        write_report(whole.folder.path)


def _run(run: Run, screen: Screen | None) -> bool:
    """Do what is left of a run; False where nothing is."""
    command, path = run.command, run.folder.path
    start = time.perf_counter()
    with _kept(run) as (header, kept, log):
        if kept is None:
            return False
        progress = Progress(kept, *(watcher for watcher in (log, screen) if watcher))
        figure = [] if command.figure is None else [command.figure]
        with profiled(path, on=command.options.profile and log is not None):
            results, curves = _module(command.name).run(command.config, *figure, progress=progress)
        if run.devices.writes:
            arrays = {key: np.asarray(curve) for key, curve in curves.items()}
            write_record(path, header | {"results": summarise(results)}, arrays)
            write_report(path)
    if screen is not None:
        run.console.print(spent(time.perf_counter() - start), highlight=False)
    return True


@contextmanager
def _on_screen(run: Run, figures: int) -> Iterator[Screen | None]:
    """What people see of a run of so many figures; None where they want to see nothing."""
    if run.command.options.quiet:
        yield None
    else:
        with on_screen(run.console, figures) as screen:
            yield screen


@contextmanager
def _kept(run: Run) -> Iterator[tuple[dict[str, Any], Kept | None, Log | None]]:
    """The header, what survives the process, and the log, which only the writing process has.

    Nothing is kept where there is nothing left to do.
    """
    lines: list[str] = []
    logs: list[Log] = []

    def tell(text: str) -> None:
        _say(run.console, text)
        logs[0].write("told", text=text) if logs else lines.append(text)

    with run.folder.under_way(tell, run.command.options.save_every) as begun:
        if begun is None or not run.devices.writes:
            yield run.folder.header, begun and begun.kept, None
            return
        fields = {key: run.folder.header[key] for key in LOGGED}
        with logged(run.folder.path, **fields) as log:
            logs.append(log)
            for text in lines:
                log.write("told", text=text)
            yield begun.header, begun.kept, log


def _header(command: Command, where: Mapping[str, Any], devices: Devices) -> dict[str, Any]:
    """The record to come, without its results; `where` is its provenance."""
    config, module = normalised(dataclasses.asdict(command.config)), _module(command.name)
    figure = [] if command.figure is None else [None if command.figure == ALL else command.figure]
    extra = module.versions(command.config, *figure) if hasattr(module, "versions") else {}
    return {
        "experiment": command.name,
        "preset": command.options.preset,
        "config": config | ({} if command.figure is None else {"figure": command.figure}),
        "command": words_of(command),
        "versions": where["versions"] | extra,
        "commit": where["commit"],
        "device": where["device"],
        "numerics": where["numerics"] | {"devices": str(devices.count)},
        "seeds": list(range(command.config.seed, command.config.seed + command.config.seeds)),
    }


def _merged(header, found):
    """One record with all methods of all figures; ValueError where two give the same number."""
    results: dict[str, dict[str, Any]] = {}
    curves: dict[str, np.ndarray] = {}
    for figure, (record, arrays) in found.items():
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


def _show(run: Run) -> None:
    path = run.folder.path
    if not run.devices.writes:
        return
    if not is_drawn(path):
        write_report(path)
    if not run.command.options.quiet:
        record = read_record(path)[0]
        show(record, run.console)
        change = first_change(record.get("numerics"), run.folder.header["numerics"])
        if change:
            told = f"These numbers are not of the flags and the device of today: {change}."
            _say(run.console, told)
        _say(run.console, f"Record, figures and report: {path}")


def _keep_compiled(console):
    """Later processes find what this one compiles, or it is told why not."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        enable_compilation_cache()
    for warning in told:
        _say(console, str(warning.message))


def _say(console, text):
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _module(name: str) -> ModuleType:
    return import_module(f"{experiments.EXPERIMENTS[name]}.run")
