# SPDX-License-Identifier: Apache-2.0
"""The flags of one command, parsed by tyro; its boxed complaints become one line."""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro


def parse_flags(
    program: str,
    text: str,
    default: Any,
    preset: str,
    presets: Iterable[str],
    figures: Sequence[str],
    argv: Sequence[str],
) -> Any:
    """The flags of one experiment, as attributes.

    Args:
      program: How the command begins, for the help.
      text: What the experiment is, for the help.
      default: The preset's configuration, whose values are the defaults.
      preset: Its name.
      presets: All of their names.
      figures: The figures that may be named, the last one by default; empty for none.
      argv: The words after the experiment's name.

    Raises:
      ValueError: one line, for anything that is not understood.
      SystemExit: with code 0, after the help was printed.
    """

    def field(name, kind, default, text, metavar=None):
        shown = tyro.conf.arg(help=text, metavar=metavar)
        return name, Annotated[kind, shown], dataclasses.field(default=default)

    hints = get_type_hints(type(default))
    fields = []
    if figures:
        kind = tyro.conf.Positional[Literal[tuple(figures)]]
        fields.append(field("figure", kind, figures[-1], "Which figure."))
    fields.append(field("preset", Literal[tuple(presets)], preset, "Which settings."))
    for flag in flagged(type(default)):
        value = getattr(default, flag.name)
        fields.append(field(flag.name, _kind(hints[flag.name]), value, _flag_help(flag)))
    fields += [
        field("set", tuple[str, ...], (), "Any other field of the settings.", "NAME=VALUE"),
        field("out", Path | None, None, "The run's folder; results/NAME/PRESET if None.", "DIR"),
        field("resume", bool, False, "Continue the run in the folder."),
        field("quiet", bool, False, "No progress, no table."),
        field("overwrite", bool, False, "Replace the run in the folder."),
        field("save_every", float, 60.0, "Seconds between checkpoints inside long loops."),
        field("profile", bool, False, "Trace the first minute by jax's profiler."),
        field("devices", int | None, None, "Spread data and kernel rows over so many.", "N"),
        field("distributed", bool, False, "Join processes on several hosts."),
        field("coordinator", str | None, None, "Process 0, if no cluster tells.", "HOST:PORT"),
        field("processes", int | None, None, "How many there are, with --coordinator."),
        field("process", int | None, None, "Which one this is, with --coordinator."),
    ]
    options = dataclasses.make_dataclass("Options", fields, frozen=True)
    return _tyro(tyro.conf.FlagCreatePairsOff[options], program, text, argv)


def parse_argument(program: str, text: str, argument: str, argv: Sequence[str]) -> str:
    """The one argument of a tool; errors as in `parse_flags`."""
    options = dataclasses.make_dataclass("Options", [(argument, tyro.conf.Positional[str])])
    return getattr(_tyro(options, program, text, argv), argument)


def flagged(config_type: type) -> list[dataclasses.Field]:
    """The fields of a configuration that are flags: the seeds, and those marked as such."""
    fields = dataclasses.fields(config_type)
    common = [field for field in fields if field.name in ("seed", "seeds")]
    return common + [f for f in fields if "flag" in f.metadata and f not in common]


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
