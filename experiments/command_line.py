# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to what is to be done; neither jax nor tyro is imported here.

The preset is looked up first, so that its values are the defaults that ``NAME --preset P --help``
shows; the flags themselves are parsed in `experiments.flags`, where tyro is.
"""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import experiments
from experiments import devices
from experiments.devices import Machine

PROGRAM = "python -m experiments"
SWEEP = "sweep"
TOOLS = {
    SWEEP: "Run an experiment for every point of a grid over its settings.",
    "report": "Draw the figures and the page of a record again, or an index of a results folder.",
    "prepare": "Fetch a TFDS data set once (needs the extra `prepare`).",
}
ARGUMENTS = {"report": "path", "prepare": "dataset"}
ALL = "all"


class Command(NamedTuple):
    """One experiment to run."""

    name: str
    figure: str | None  # None where the experiment has no figures of its own names.
    preset: str
    config: Any
    out: Path
    resume: bool
    quiet: bool
    overwrite: bool
    save_every: float = 60.0
    profile: bool = False
    machine: Machine = Machine()


class SweepCommand(NamedTuple):
    """One experiment at every point of a grid."""

    base: Command  # `out` is the sweep's folder.
    grid: dict[str, list[str]]  # Field -> values, in words.
    jobs: int
    retries: int
    ray: str | None  # The cluster's address; None: local processes.
    gpus: float  # Of each cell, on Ray.


class ToolCommand(NamedTuple):
    """A tool and its one argument."""

    name: str
    argument: str


def available() -> tuple[str, ...]:
    """Names of the experiments that are there."""
    return tuple(name for name, path in experiments.EXPERIMENTS.items() if find_spec(path))


def settings(name: str) -> ModuleType:
    """The module `config` of an experiment."""
    return import_module(f"{experiments.EXPERIMENTS[name]}.config")


def about(name: str) -> str:
    """What an experiment does, in a line."""
    return (settings(name).__doc__ or "").strip().partition("\n")[0]


def overview() -> str:
    """The help text of the whole command line."""
    told = {name: about(name) for name in available()}
    lines = [f"  {name:<16}{text}" for name, text in (told | TOOLS).items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} NAME [FIGURE] [--preset P] [flags]",
            f"       {PROGRAM} sweep NAME [FIGURE] --grid SETTING=VALUE,... [flags]",
            f"       {PROGRAM} report PATH",
            f"       {PROGRAM} prepare DATASET",
            "",
            "Run an experiment; its record, figures and report go to results/NAME/PRESET.",
            "",
            *lines,
            "",
            f"Presets and flags of one experiment: {PROGRAM} NAME --help",
        ]
    )


def parse(argv: Sequence[str]) -> Command | SweepCommand | ToolCommand:
    """What `argv` asks for.

    Raises:
      ValueError: one line, for anything that is not understood.
      SystemExit: with code 0, after the help of one experiment or tool was printed.
    """
    name, *rest = argv or ["--help"]
    if name == SWEEP:
        from experiments.grid import parse_sweep

        return parse_sweep(rest)
    if name in TOOLS:
        from experiments.flags import parse_argument

        program = f"{PROGRAM} {name}"
        return ToolCommand(name, parse_argument(program, TOOLS[name], ARGUMENTS[name], rest))
    return parse_experiment(name, rest)


def words(command: Command) -> str:
    """The shortest command line that asks for the same run, whatever its folder."""
    from experiments.flags import flagged
    from experiments.overrides import differences, written

    figure = [command.figure] if command.figure else []
    found = [*PROGRAM.split(), command.name, *figure, "--preset", command.preset]
    default = settings(command.name).PRESETS[command.preset]
    flags = [flag.name for flag in flagged(type(command.config))]
    others = []
    for name, value in differences(command.config, default).items():
        if name in flags:
            found += _flag_words(name.replace("_", "-"), value)
        else:
            others.append(f"{name}={written(value)}")
    return shlex.join([*found, *(["--set", *others] if others else [])])


def folder_of(command: Command) -> Path:
    """Where its record goes: each figure has a folder of its own."""
    return command.out if command.figure in (None, ALL) else command.out / command.figure


def parse_experiment(name: str, argv: Sequence[str]) -> Command:
    """The run of one experiment that `argv` asks for; errors as of `parse`."""
    from experiments.flags import flagged, parse_flags
    from experiments.overrides import assignments, changed

    if name not in available():
        raise ValueError(f"no experiment {name!r}; there are {', '.join((*available(), *TOOLS))}.")
    module = settings(name)
    preset = _chosen_preset(name, module.PRESETS, argv)
    default = module.PRESETS[preset]
    figures = getattr(module, "FIGURES", ())
    _check_figure(name, figures, argv)
    choices = (*figures, ALL) if figures else ()
    text = (module.__doc__ or "").strip()
    flags = parse_flags(f"{PROGRAM} {name}", text, default, preset, module.PRESETS, choices, argv)
    changes = {flag.name: getattr(flags, flag.name) for flag in flagged(module.Config)}
    config = changed(dataclasses.replace(default, **changes), assignments(flags.set))
    check_config(name, config)
    machine = Machine(*(getattr(flags, field) for field in Machine._fields))
    devices.check(machine)
    if devices.are_several(machine):
        _check_spread(name, flags.figure if figures else None, module)
    if not 0 <= flags.save_every < math.inf:
        raise ValueError(f"save_every must be at least 0 seconds, got {flags.save_every}.")
    return Command(
        name=name,
        figure=flags.figure if figures else None,
        preset=preset,
        config=config,
        out=flags.out or Path("results") / name / preset,
        resume=flags.resume,
        quiet=flags.quiet,
        overwrite=flags.overwrite,
        save_every=flags.save_every,
        profile=flags.profile,
        machine=machine,
    )


def check_config(name: str, config: Any) -> None:
    """Raise ValueError, in a line, for settings that cannot be run."""
    if config.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {config.seeds}.")
    if not 0 <= config.seed < 2**31:
        raise ValueError(f"seed must lie in [0, 2**31), got {config.seed}.")
    try:
        settings(name).check(config)
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} cannot be run with these settings ({said}).") from error


def _check_spread(name, figure, module):
    """A figure without anything to spread would only be computed several times."""
    alone = getattr(module, "ON_ONE_DEVICE", ())
    others = [other for other in getattr(module, "FIGURES", ()) if other not in alone]
    if not alone or (others if figure == ALL else figure not in alone):
        return
    told = f"; {', '.join(others)} have" if others else ""
    raise ValueError(
        f"{name} {figure} has nothing large enough to spread over devices{told}: leave out "
        "--devices and --distributed."
    )


def _chosen_preset(name, presets, argv):
    chosen = "quick" if "quick" in presets else next(iter(presets))
    for i, word in enumerate(argv):
        if word == "--preset" and i + 1 < len(argv):
            chosen = argv[i + 1]
        elif word.startswith("--preset="):
            chosen = word.partition("=")[2]
    if chosen not in presets:
        raise ValueError(f"{name} has no preset {chosen!r}; there are {', '.join(presets)}.")
    return chosen


def _check_figure(name, figures, argv):
    if not argv or argv[0].startswith("-") or argv[0] in (*figures, *((ALL,) if figures else ())):
        return
    known = f"there are {', '.join((*figures, ALL))}" if figures else "it takes flags only"
    raise ValueError(f"{name} has no figure {argv[0]!r}; {known}.")


def _flag_words(name, value):
    if isinstance(value, bool):
        return [f"--{name}"] if value else [f"--no-{name}"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [f"--{name}", text]
