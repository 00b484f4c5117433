# SPDX-License-Identifier: Apache-2.0
"""One command carried out: folder, run, record, figures, report, table."""

import dataclasses
import time
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

import experiments
from experiments.cli import ALL, Command, settings, words_of
from experiments.progress import Progress
from experiments.report import is_drawn, show, write_report
from experiments.run_folder import (
    RunFolder,
    check_same,
    continued,
    discard,
    first_change,
    locked,
    normalised,
)
from experiments.run_log import profiled, spent
from experiments.screen import Screen, on_screen
from experiments.sharding import Devices, joined
from plprune.compilation.persistent import enable_compilation_cache
from plprune.records import Record, provenance, read_record, summarise, write_record


class Run(NamedTuple):
    """One figure, or an experiment that has none of its own names, in its folder."""

    command: Command
    devices: Devices
    console: Console
    folder: RunFolder

    def say(self, text: str) -> None:
        """A line for people, as it is."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def carry_out(command: Command, console: Console) -> None:
    """Run the experiment on its devices, or show what its folder already holds.

    Raises:
      ValueError: where the folder holds anything that must not be replaced.
    """
    with joined(command.options) as devices:
        if not devices.writes:
            options = dataclasses.replace(command.options, quiet=True)
            command = command._replace(options=options)
        where = provenance()
        run = _run_of(command, where, devices, console)
        if command.options.compilation_cache:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                enable_compilation_cache()
            for warning in told:
                run.say(str(warning.message))
        if command.figure == ALL:
            _all(run, where)
        elif run.folder.must_run():
            with on_screen(console, is_quiet=command.options.quiet) as screen:
                _run(run, screen)
        _show(run)


def _run_of(command, where, devices, console, **changes):
    """A run and its folder; `where` is the provenance of its record to come."""
    config, package = command.config, experiments.EXPERIMENTS[command.name]
    versions = getattr(import_module(f"{package}.run"), "versions", lambda *_: {})
    figure = [] if command.figure is None else [command.figure]
    extra = versions(config, *(None if name == ALL else name for name in figure))
    header = {
        "experiment": command.name,
        "preset": command.options.preset,
        "config": normalised(dataclasses.asdict(config))
        | ({"figure": command.figure} if figure else {}),
        "command": words_of(command),
        "versions": where["versions"] | extra,
        "commit": where["commit"],
        "device": where["device"],
        "numerics": where["numerics"] | {"devices": str(devices.count)},
        "seeds": list(range(config.seed, config.seed + config.seeds)),
    }
    options = {"resume": command.options.resume, "overwrite": command.options.overwrite}
    folder = RunFolder(command.out, header, devices, **options, **changes)
    return Run(command, devices, console, folder)


def _run(run: Run, screen: Screen | None, *, draws: bool = True) -> bool:
    """Do what is left of a run; False where nothing is."""
    command, path = run.command, run.folder.path
    start = time.perf_counter()
    with run.folder.under_way(run.say, command.options.save_every) as now:
        if now is None:
            return False
        progress = Progress(now.kept, *(watcher for watcher in (now.log, screen) if watcher))
        work = import_module(f"{experiments.EXPERIMENTS[command.name]}.run").run
        figure = [] if command.figure is None else [command.figure]
        is_profiled = command.options.profile and run.devices.writes
        with profiled(path) if is_profiled else nullcontext():
            results, curves = work(command.config, *figure, progress=progress)
        if run.devices.writes:
            arrays = {key: np.asarray(curve) for key, curve in curves.items()}
            write_record(path, now.header | {"results": summarise(results)}, arrays)
            if draws:
                write_report(path)
    if screen is not None:
        run.console.print(spent(time.perf_counter() - start), highlight=False)
    return True


def _all(whole: Run, where: Mapping[str, Any]) -> None:
    """Every figure in a folder of its own, and one record of them all above."""
    command, devices, console, _ = whole
    figures = settings(command.name).FIGURES
    folder = whole.folder._replace(inner=figures)
    each = {
        figure: _run_of(command._replace(figure=figure), where, devices, console, alike=True)
        for figure in figures
    }
    if folder.must_run():
        for one in each.values():  # All are checked before the first is run.
            one.folder.must_run()
        _run_all(whole._replace(folder=folder), each)


def _run_all(whole: Run, each: dict[str, Run]) -> None:
    folder, writes = whole.folder, whole.devices.writes
    with folder.under_way(whole.say) as now:
        if now is None:
            return
        if folder.overwrite:
            if writes:
                discard(one.folder.path for one in each.values())
            # What another process does there from now on is not to be replaced.
            keep = {"overwrite": False, "resume": True}
            each = {k: one._replace(folder=one.folder._replace(**keep)) for k, one in each.items()}
        is_quiet = whole.command.options.quiet
        with on_screen(whole.console, len(each), is_quiet=is_quiet) as screen:
            _run_each(each.values(), screen)
        if writes:
            write_record(folder.path, *_merged(now.header, each))
            write_report(folder.path)


def _run_each(runs: Iterable[Run], screen: Screen | None) -> None:
    """One after another; what is finished is drawn while the next compiles, on another core."""
    drawing = ThreadPoolExecutor(1, thread_name_prefix="report")
    try:
        for one in runs:
            anew = _run(one, screen, draws=False)
            if anew and one.devices.writes:
                drawing.submit(_draw, one.folder.path)
            if screen is not None:
                screen.figure_finished(anew=anew)
        drawing.shutdown()
    finally:  # An interruption waits for the report in hand alone.
        drawing.shutdown(cancel_futures=True)


def _draw(folder: Path) -> None:
    """Draw what can be; the report of the whole draws the rest, or says what is wrong with it."""
    with suppress(ValueError, OSError), locked(folder):
        write_report(folder)


def _merged(header: Record, each: Mapping[str, Run]) -> tuple[Record, dict[str, np.ndarray]]:
    """One record with all methods of all figures; ValueError where two give the same number."""
    results: dict[str, dict[str, Any]] = {}
    curves: dict[str, np.ndarray] = {}
    for figure, one in each.items():
        record, arrays = read_record(one.folder.path)
        check_same(one.folder.path, one.folder.header, record)
        header = continued(header, record)
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
    """The record's table; its figures and page are drawn where they are not yet."""
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
            run.say(f"These numbers are not of the flags and the device of today: {change}.")
        run.say(f"Record, figures and report: {path}")
