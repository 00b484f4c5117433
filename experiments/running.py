"""One command carried out: folder, run, record, figures, report, table."""

import dataclasses
import resource
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from rich.console import Console

import experiments
from experiments.command_line import ALL, Command, settings, words
from experiments.folders import clear, must_run, normalised, under_way
from experiments.progress import reporting
from experiments.report import is_drawn, show, write_report
from plprune.records import Record, provenance, read_record, summarise, write_record

Run = tuple[Record, dict[str, np.ndarray]]
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # Of `ru_maxrss`, in bytes.


def carry_out(command: Command, console: Console) -> None:
    """Run the experiment, or show what its folder already holds.

    Raises:
      ValueError: where the folder holds anything that must not be replaced.
    """
    figures = getattr(settings(command.name), "FIGURES", ())
    if not figures:
        _one(command, console)
    elif command.figure != ALL:
        _one(command._replace(out=command.out / command.figure), console)
    else:
        _all(command, figures, console)


def _all(command, figures, console):
    """Every figure in a folder of its own, and one record of them all above."""
    folder, where = command.out, provenance()
    header = _header(command, where)
    each = {figure: command._replace(figure=figure, out=folder / figure) for figure in figures}
    headers = {figure: _header(one, where) for figure, one in each.items()}
    if _must_run(command, header, inner=figures):
        # All are checked before the first is run.
        missing = [figure for figure in figures if _must_run(each[figure], headers[figure])]
        with under_way(folder, header, overwrite=command.overwrite, tell=console.print):
            for figure in missing if command.overwrite else ():
                clear(folder / figure)
            for figure in missing:
                _run(each[figure], headers[figure], console)
            runs = [read_record(folder / figure) for figure in figures]
            write_record(folder, *_merged(header, figures, runs))
            write_report(folder)
    _show(command, console)


def _one(command, console):
    """One figure, or an experiment that has none of its own names."""
    header = _header(command, provenance())
    if _must_run(command, header):
        _run(command, header, console)
    _show(command, console)


def _must_run(command, header, inner=()):
    options = {"resume": command.resume, "overwrite": command.overwrite}
    return must_run(command.out, header, **options, inner=inner)


def _run(command, header, console):
    module = import_module(f"{experiments.EXPERIMENTS[command.name]}.run")
    figure = [] if command.figure is None else [command.figure]
    options = {"overwrite": command.overwrite, "tell": console.print}
    start = time.perf_counter()
    with under_way(command.out, header, **options) as kept:
        with reporting(console, quiet=command.quiet, kept=kept) as progress:
            results, curves = module.run(command.config, *figure, progress=progress)
        arrays = {key: np.asarray(curve) for key, curve in curves.items()}
        write_record(command.out, header | {"results": summarise(results)}, arrays)
        write_report(command.out)
    if not command.quiet:
        console.print(_spent(time.perf_counter() - start), highlight=False)


def _spent(seconds):
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 2**20
    return f"Done in {seconds:,.1f} s, with at most {memory:,.0f} MiB of memory."


def _header(command: Command, where: Mapping[str, Any]) -> dict[str, Any]:
    """The record to come, without its results; `where` is its provenance."""
    config = normalised(dataclasses.asdict(command.config))
    module = import_module(f"{experiments.EXPERIMENTS[command.name]}.run")
    extra = module.versions(command.config) if hasattr(module, "versions") else {}
    return {
        "experiment": command.name,
        "preset": command.preset,
        "config": config | ({} if command.figure is None else {"figure": command.figure}),
        "command": words(command),
        "versions": where["versions"] | extra,
        "commit": where["commit"],
        "device": where["device"],
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


def _show(command: Command, console: Console) -> None:
    if not is_drawn(command.out):
        write_report(command.out)
    if not command.quiet:
        show(read_record(command.out)[0], console)
        told = f"Record, figures and report: {command.out}"
        console.print(told, soft_wrap=True, highlight=False)
