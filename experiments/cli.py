# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to what is to be done.

Every setting of a configuration is a flag of its own name and type: tyro parses the dataclass, with
the preset's values as defaults and the comments of its fields as help. Lists are written with
commas. Neither jax nor tyro is imported before an experiment is named.
"""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import experiments

PROGRAM = "python -m experiments"
TOOLS = {
    "sweep": "Run an experiment for every point of a grid over its settings.",
    "report": "Draw the figures and the page of a record again, or an index of a results folder.",
    "compare": "Say which results of two records differ by more than two standard errors.",
    "prepare": "Fetch a TFDS data set once (needs the extra `prepare`).",
}
ALL = "all"
NONE = None, None, None
MOST_DEVICES = 2**20  # No machine has more; a typing error has.


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What every experiment takes besides its settings."""

    preset: str = "quick"  # Which settings; --presets lists them.
    out: Path | None = None  # The run's folder; results/NAME/PRESET if None.
    resume: bool = False  # Continue the run in the folder.
    overwrite: bool = False  # Replace the run in the folder.
    quiet: bool = False  # No progress, no table.
    save_every: float = 60.0  # Seconds between checkpoints inside long loops.
    profile: bool = False  # Trace the first minute by jax's profiler.
    compilation_cache: bool = True  # Keep what is compiled for later processes, on disk.
    devices: int | None = None  # Spread data and kernel rows over so many.
    distributed: bool = False  # Join processes on several hosts.
    coordinator: str | None = None  # HOST:PORT of process 0, if no cluster tells.
    processes: int | None = None  # How many there are, with --coordinator.
    process: int | None = None  # Which one this is, with --coordinator.

    @property
    def are_several(self) -> bool:
        """Whether work is to be spread over devices."""
        return self.distributed or self.devices not in (None, 1)


class Command(NamedTuple):
    """One experiment to run."""

    name: str
    figure: str | None  # None where the experiment has no figures of its own names.
    config: Any
    options: RunOptions

    @property
    def out(self) -> Path:
        """The folder of the record: each figure has one of its own."""
        folder = self.options.out or Path("results") / self.name / self.options.preset
        return folder if self.figure in (None, ALL) else folder / self.figure


def settings(name: str) -> ModuleType:
    """The module `config` of an experiment."""
    return import_module(f"{experiments.EXPERIMENTS[name]}.config")


def about(name: str) -> str:
    """What an experiment does, in a line."""
    return (settings(name).__doc__ or "").strip().partition("\n")[0]


def overview() -> str:
    """The help text of the whole command line."""
    told = {name: about(name) for name in experiments.EXPERIMENTS}
    lines = [f"  {name:<16}{text}" for name, text in (told | TOOLS).items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} NAME [FIGURE] [--preset P] [flags]",
            f"       {PROGRAM} sweep NAME [FIGURE] --grid SETTING=VALUE,... [flags]",
            f"       {PROGRAM} report PATH",
            f"       {PROGRAM} compare PATH PATH",
            f"       {PROGRAM} prepare DATASET",
            "",
            "Run an experiment; its record, figures and report go to results/NAME/PRESET.",
            "",
            *lines,
            "",
            f"Presets of one experiment: {PROGRAM} NAME --presets",
            f"Settings and flags of one: {PROGRAM} NAME --preset P --help",
        ]
    )


def presets(name: str) -> str:
    """Every preset of an experiment: how long it takes, what data it needs, what it shows."""
    module, lines = settings(name), []
    for preset in module.PRESETS:
        told = module.ABOUT[preset]
        minutes = f"about {told.minutes:g} min" if told.minutes else "not timed"
        needs = f", needs {told.data}" if told.data else ""
        lines += [f"{preset} ({minutes}{needs})", f"    {told.claim}"]
        lines += [f"    Expected: {told.expected}"] if told.expected else []
    return "\n".join([f"Presets of {PROGRAM} {name} --preset P, timed on two cores:", "", *lines])


def parse(name: str, words: Sequence[str]) -> Command:
    """The run of the experiment `name` that `words` ask for.

    Raises:
      ValueError: one line, for anything that is not understood or cannot be run.
      SystemExit: with code 0, after the help was printed.
    """
    from experiments.parsing import read

    if name not in experiments.EXPERIMENTS:
        known = ", ".join((*experiments.EXPERIMENTS, *TOOLS))
        raise ValueError(f"no experiment {name!r}; there are {known}.")
    module = settings(name)
    figures = (*getattr(module, "FIGURES", ()), ALL) if hasattr(module, "FIGURES") else ()
    figure, words = figures[-1] if figures else None, list(words)
    if words and not words[0].startswith("-"):
        figure = words.pop(0)
        if figure not in figures:
            known = f"there are {', '.join(figures)}" if figures else "it takes flags only"
            raise ValueError(f"{name} has no figure {figure!r}; {known}.")
    preset = _preset(name, module, words)
    lists = f"Figures: {', '.join(figures)}." if figures else ""
    text = (
        (module.__doc__ or "").strip(),
        getattr(module, "DETAILS", ""),
        lists,
        f"Presets: {', '.join(module.PRESETS)}.",
    )
    options, config = read(
        f"{PROGRAM} {name}", "\n\n".join(filter(None, text)), words, RunOptions(preset),
        module.PRESETS[preset],
    )  # fmt: skip
    command = Command(name, figure, config, options)
    check(name, module, config)
    _check_options(command, module)
    return command


def configured(command: Command, words: Sequence[str]) -> Any:
    """The settings of a command with what `words` change in them; errors as of `parse`."""
    from experiments.parsing import read

    return read(f"{PROGRAM} {command.name}", "", words, RunOptions(), command.config)[1]


def parse_arguments(tool: str, names: Sequence[str], words: Sequence[str]) -> list[str]:
    """The arguments of a tool, one for each name; errors as of `parse`."""
    if "-h" in words or "--help" in words:
        print(f"usage: {PROGRAM} {tool} {' '.join(names).upper()}\n\n{TOOLS[tool]}")
        raise SystemExit(0)
    if len(words) != len(names) or any(word.startswith("-") for word in words):
        count = "one argument" if len(names) == 1 else f"{len(names)} arguments"
        given = shlex.join(words) or "nothing"
        raise ValueError(f"{tool} takes {count}, {' '.join(names)}, got {given}.")
    return list(words)


def check(name: str, module: ModuleType, config: Any) -> None:
    """Raise ValueError, in a line, for settings that `module` says cannot be run."""
    if config.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {config.seeds}.")
    if not 0 <= config.seed < 2**31:
        raise ValueError(f"seed must lie in [0, 2**31), got {config.seed}.")
    try:
        module.check(config)
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} cannot be run with these settings ({said}).") from error


def words_of(command: Command) -> str:
    """The shortest command line that asks for the same numbers, whatever its folder."""
    from experiments.parsing import flags, written

    usual = dict(flags(settings(command.name).PRESETS[command.options.preset]))
    found = [*PROGRAM.split(), command.name, *([command.figure] if command.figure else [])]
    found += ["--preset", command.options.preset]
    for path, value in flags(command.config):
        if value != usual[path]:
            word = written(value)
            found += [f"--{path}={word}"] if word.startswith("-") else [f"--{path}", word]
    return shlex.join(found)


def _preset(name, module, words):
    """Looked up first: its values are the defaults of all flags."""
    known = module.PRESETS
    chosen = getattr(module, "DEFAULT", "quick" if "quick" in known else next(iter(known)))
    for word, following in pairwise([*words, chosen]):
        if word == "--preset":
            chosen = following
        elif word.startswith("--preset="):
            chosen = word.partition("=")[2]
    if chosen not in known:
        raise ValueError(f"{name} has no preset {chosen!r}; there are {', '.join(known)}.")
    return chosen


def _check_options(command, module):
    name, figure, _, options = command
    if options.resume and options.overwrite:
        raise ValueError("--resume and --overwrite exclude each other.")
    if not 0 <= options.save_every < math.inf:
        raise ValueError(f"save_every must be at least 0 seconds, got {options.save_every}.")
    if options.devices is not None and not 1 <= options.devices <= MOST_DEVICES:
        raise ValueError(f"devices must lie in [1, {MOST_DEVICES}], got {options.devices}.")
    if options.distributed or (options.coordinator, options.processes, options.process) != NONE:
        _check_processes(options)
    alone = getattr(module, "ON_ONE_DEVICE", ())
    others = [other for other in getattr(module, "FIGURES", ()) if other not in alone]
    if options.are_several and (figure in alone or (figure == ALL and not others)):
        told = f"; {', '.join(others)} have" if others else ""
        raise ValueError(
            f"{name} {figure} has nothing large enough to spread over devices{told}: leave out "
            "--devices and --distributed."
        )


def _check_processes(options):
    explicit = options.coordinator, options.processes, options.process
    if not options.distributed:
        raise ValueError("--coordinator, --processes and --process need --distributed.")
    if explicit == NONE:
        return
    if options.coordinator is None:
        raise ValueError("--processes and --process need --coordinator.")
    host, _, port = options.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator must be HOST:PORT, got {options.coordinator!r}.")
    if options.processes is None or options.process is None:
        raise ValueError("--coordinator needs --processes and --process.")
    if not 0 <= options.process < options.processes:
        raise ValueError(f"process must lie in [0, {options.processes}), got {options.process}.")
