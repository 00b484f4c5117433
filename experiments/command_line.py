"""From the words of a command line to what is to be done; no jax is imported here.

Flags are parsed by tyro. The preset is looked up first, so that its values are the defaults that
``NAME --preset P --help`` shows.
"""

import contextlib
import dataclasses
import io
import shlex
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import tyro

import experiments

PROGRAM = "python -m experiments"
TOOLS = {
    "report": "Draw the figures and the page of a record again, or an index of a results folder.",
    "prepare": "Fetch a TFDS data set once (needs the extra `prepare`).",
}
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
    words: str  # The shortest command line that asks for the same run.


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


def overview() -> str:
    """The help text of the whole command line."""
    told = {name: (settings(name).__doc__ or "").strip().partition("\n")[0] for name in available()}
    lines = [f"  {name:<16}{text}" for name, text in (told | TOOLS).items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} NAME [FIGURE] [--preset P] [flags]",
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


def parse(argv: Sequence[str]) -> Command | ToolCommand:
    """What `argv` asks for.

    Raises:
      ValueError: one line, for anything that is not understood.
      SystemExit: with code 0, after the help of one experiment or tool was printed.
    """
    name, *rest = argv or ["--help"]
    if name in TOOLS:
        return _parse_tool(name, rest)
    if name not in available():
        raise ValueError(f"no experiment {name!r}; there are {', '.join((*available(), *TOOLS))}.")
    return _parse_experiment(name, rest)


def _parse_experiment(name, argv) -> Command:
    module = settings(name)
    preset = _chosen_preset(name, module.PRESETS, argv)
    default = module.PRESETS[preset]
    figures = getattr(module, "FIGURES", ())
    _check_figure(name, figures, argv)
    flags = _parse_flags(name, module, default, preset, figures, argv)
    changes = {flag.name: getattr(flags, flag.name) for flag in _flagged(module.Config)}
    config = dataclasses.replace(default, **changes)
    _check_seeds(config)
    module.check(config)
    return Command(
        name=name,
        figure=flags.figure if figures else None,
        preset=preset,
        config=config,
        out=flags.out or Path("results") / name / preset,
        resume=flags.resume,
        quiet=flags.quiet,
        overwrite=flags.overwrite,
        words=_words(name, flags.figure if figures else None, preset, default, config),
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


def _parse_flags(name, module, default, preset, figures, argv):
    def field(name, kind, default, text, metavar=None):
        shown = tyro.conf.arg(help=text, metavar=metavar)
        return name, Annotated[kind, shown], dataclasses.field(default=default)

    hints = get_type_hints(module.Config)
    fields = []
    if figures:
        kind = tyro.conf.Positional[Literal[(*figures, ALL)]]
        fields.append(field("figure", kind, ALL, "Which figure."))
    fields.append(field("preset", Literal[tuple(module.PRESETS)], preset, "Which settings."))
    for flag in _flagged(module.Config):
        value = getattr(default, flag.name)
        fields.append(field(flag.name, _kind(hints[flag.name]), value, _flag_help(flag)))
    fields += [
        field("out", Path | None, None, f"The run's folder; results/{name}/PRESET if None.", "DIR"),
        field("resume", bool, False, "Continue the run in the folder."),
        field("quiet", bool, False, "No progress, no table."),
        field("overwrite", bool, False, "Replace the run in the folder."),
    ]
    options = dataclasses.make_dataclass(f"{name} options", fields, frozen=True)
    text = (module.__doc__ or "").strip()
    return _tyro(tyro.conf.FlagCreatePairsOff[options], f"{PROGRAM} {name}", text, argv)


def _parse_tool(name, argv) -> ToolCommand:
    argument = {"report": "path", "prepare": "dataset"}[name]
    fields = [(argument, tyro.conf.Positional[str])]
    options = dataclasses.make_dataclass(f"{name} options", fields)
    found = _tyro(options, f"{PROGRAM} {name}", TOOLS[name], argv)
    return ToolCommand(name, getattr(found, argument))


def _tyro(options, program, text, argv):
    """Tyro's answer; its boxed complaint becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(options, prog=program, description=text, args=list(argv))
    except SystemExit as stop:
        if not stop.code:
            raise
    said = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
    body = [line for line in said if line and line[0] not in "╭╰"]
    rule = next((i for i, line in enumerate(body) if set(line) == {"─"}), len(body))
    reason = " ".join(body[:rule]) or "the flags are not understood"
    raise ValueError(f"{reason}; see {program} --help.") from None


def _flagged(config_type) -> list[dataclasses.Field]:
    fields = dataclasses.fields(config_type)
    common = [field for field in fields if field.name in ("seed", "seeds")]
    return common + [f for f in fields if "flag" in f.metadata and f not in common]


def _flag_help(flag):
    told = {"seed": "The first seed.", "seeds": "How many seeds."}
    return flag.metadata.get("flag") or told.get(flag.name, "")


def _kind(hint):
    """The type that tyro parses: a tuple is one word with commas."""
    if get_origin(hint) is not tuple:
        return hint
    item = get_args(hint)[0]
    spec = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{item.__name__.upper()},...",
        instance_from_str=lambda words: tuple(item(w.strip()) for w in words[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )
    return Annotated[hint, spec]


def _check_seeds(config):
    if config.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {config.seeds}.")
    if not 0 <= config.seed < 2**31:
        raise ValueError(f"seed must lie in [0, 2**31), got {config.seed}.")


def _words(name, figure, preset, default, config):
    words = [*PROGRAM.split(), name, *([figure] if figure else []), "--preset", preset]
    for flag in _flagged(type(config)):
        value = getattr(config, flag.name)
        if value != getattr(default, flag.name):
            words += _flag_words(flag.name.replace("_", "-"), value)
    return shlex.join(words)


def _flag_words(name, value):
    if isinstance(value, bool):
        return [f"--{name}"] if value else [f"--no-{name}"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [f"--{name}", text]
