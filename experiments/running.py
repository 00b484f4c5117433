"""One command carried out: folder, run, record, figures, report, table."""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import experiments
from experiments.command_line import ALL, Command, settings
from experiments.folders import must_run, normalised, under_way
from experiments.progress import reporting
from experiments.report import is_drawn, show, write_report
from plprune.records import Record, provenance, read_record, summarise, write_record

Run = tuple[Record, dict[str, np.ndarray]]


def carry_out(command: Command, console: Console) -> None:
    """Run the experiment, or show what its folder already holds.

    Raises:
      ValueError: where the folder holds anything that must not be replaced.
    """
    figures = getattr(settings(command.name), "FIGURES", ())
    if not figures:
        _show(command, _one(command, None, command.out, console), command.out, console)
    elif command.figure != ALL:
        folder = command.out / command.figure
        _show(command, _one(command, command.figure, folder, console), folder, console)
    else:
        _all(command, figures, console)


def _all(command, figures, console):
    """Every figure in a folder of its own, and one record of them all above."""
    header = _header(command, ALL)
    missing = must_run(
        command.out, header, resume=command.resume, overwrite=command.overwrite, inner=figures
    )
    runs = [_one(command, figure, command.out / figure, console) for figure in figures]
    if missing:
        write_record(command.out, *_merged(header, figures, runs))
    run = read_record(command.out)
    if missing or not is_drawn(command.out):
        write_report(command.out)
    _show(command, run, command.out, console)


def _one(command, figure, folder, console) -> Run:
    """The run of one figure (or of the whole experiment), done or read."""
    header = _header(command, figure)
    options = {"resume": command.resume, "overwrite": command.overwrite}
    if must_run(folder, header, **options):
        with under_way(folder, header, overwrite=command.overwrite, tell=console.print) as once:
            with reporting(console, quiet=command.quiet, once=once) as progress:
                results, curves = _run(command, figure, progress)
            arrays = {key: np.asarray(curve) for key, curve in curves.items()}
            write_record(folder, header | {"results": summarise(results)}, arrays)
            write_report(folder)
    elif not is_drawn(folder):
        write_report(folder)
    return read_record(folder)


def _run(command, figure, progress):
    run = import_module(f"{experiments.EXPERIMENTS[command.name]}.run").run
    if figure is None:
        return run(command.config, progress=progress)
    return run(command.config, figure, progress=progress)


def _header(command: Command, figure: str | None) -> dict[str, Any]:
    """The record to come, without its results."""
    config = normalised(dataclasses.asdict(command.config))
    where = provenance()
    module = import_module(f"{experiments.EXPERIMENTS[command.name]}.run")
    extra = module.versions(command.config) if hasattr(module, "versions") else {}
    return {
        "experiment": command.name,
        "preset": command.preset,
        "config": config | ({} if figure is None else {"figure": figure}),
        "command": command.words,
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


def _show(command: Command, run: Run, folder: Path, console: Console) -> None:
    if not command.quiet:
        show(run[0], console)
        console.print(f"Record, figures and report: {folder}", soft_wrap=True, highlight=False)
