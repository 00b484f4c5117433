# SPDX-License-Identifier: Apache-2.0
"""Dataclasses as typed flags, by tyro; its boxed complaints become one line."""

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin

import tyro
from tyro.conf import FlagConversionOff, FlagCreatePairsOff, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
)

RULES = ConstructorRegistry()


def read(program: str, text: str, words: Sequence[str], options: Any, config: Any) -> tuple:
    """`options` and `config` with what `words` change in them.

    Args:
      program: How the command begins, for the help.
      text: What it does, for the help.
      words: Of the command line.
      options: A dataclass whose booleans are flags without a value.
      config: A dataclass of settings, each of which is named with its value.

    Raises:
      ValueError: one line, for anything that is not understood.
      SystemExit: with code 0, after the help was printed.
    """
    fields = [
        ("options", Annotated[FlagCreatePairsOff[type(options)], arg(name="")]),
        ("config", Annotated[FlagConversionOff[type(config)], arg(name="")]),
    ]
    both = dataclasses.make_dataclass("Flags", fields, frozen=True)
    found = _told(program, both, words, description=text, default=both(options, config))
    return found.options, found.config


def read_some(program: str, text: str, words: Sequence[str], kind: type) -> tuple[Any, list[str]]:
    """A dataclass from some of `words`, and the others; errors as of `read`."""
    return _told(program, kind, words, description=text, return_unknown_args=True)


def flags(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration, as its flag and its value: regimes.0.batch-size."""
    if dataclasses.is_dataclass(config):
        inner = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    elif are_named(config):
        inner = config
    elif isinstance(config, tuple) and config and dataclasses.is_dataclass(config[0]):
        inner = enumerate(config)
    else:
        yield path, config
        return
    for name, value in inner:
        own = str(name).replace("_", "-")
        yield from flags(value, f"{path}.{own}" if path else own)


def changed(config: Any, values: Mapping[str, Any], path: str = "") -> Any:
    """`config` with other values of settings, by the names that `flags` gives them."""
    if path in values:
        return values[path]

    def inner(name, value):
        own = str(name).replace("_", "-")
        return changed(value, values, f"{path}.{own}" if path else own)

    if dataclasses.is_dataclass(config):
        names = [field.name for field in dataclasses.fields(config)]
        return dataclasses.replace(config, **{n: inner(n, getattr(config, n)) for n in names})
    if are_named(config):
        return tuple((name, inner(name, value)) for name, value in config)
    if isinstance(config, tuple) and config and dataclasses.is_dataclass(config[0]):
        return tuple(inner(i, value) for i, value in enumerate(config))
    return config


def are_named(value: Any) -> bool:
    """Whether it is a tuple of names and values, such as the sizes of a network."""
    return isinstance(value, tuple) and bool(value) and all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in value
    )  # fmt: skip


def written(value: Any) -> str:
    """A setting as a word of the command line."""
    return ",".join(map(written, value)) if isinstance(value, tuple) else str(value)


def _told(program, kind, words, **options):
    """Tyro's answer; its boxed complaint becomes one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=program, args=list(words), registry=RULES, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
    said = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
    body = [line for line in said if line and line[0] not in "╭╰"]
    rule = next((i for i, line in enumerate(body) if set(line) == {"─"}), len(body))
    reason = " ".join(body[:rule]) or "the flags are not understood"
    raise ValueError(f"{reason}; see {program} --help.") from None


def finite(word: str) -> float:
    """A number; ValueError where it is infinite or none."""
    if not math.isfinite(float(word)):
        raise ValueError(f"it must be finite, got {word}")
    return float(word)


@RULES.primitive_rule
def _float(info):
    """A number that JSON can hold."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda words: finite(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )


@RULES.primitive_rule
def _list(info):
    """A list of numbers or names is one word with commas."""
    arguments = get_args(info.type)
    if get_origin(info.type) is not tuple or arguments[1:] != (Ellipsis,):
        return None
    if arguments[0] not in (int, float, str):
        return None
    read_item = finite if arguments[0] is float else arguments[0]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{arguments[0].__name__.upper()},...",
        instance_from_str=lambda words: tuple(
            read_item(word.strip()) for word in words[0].split(",") if words[0]
        ),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [written(value)],
    )


@RULES.struct_rule
def _named(info):
    """Each of several named values is a flag of the type that it has: network.sizes.hidden."""
    if not are_named(info.default):
        return None
    fields = tuple(StructFieldSpec(name, _type_of(value), value) for name, value in info.default)
    return StructConstructorSpec(lambda **values: tuple(values.items()), fields)


def _type_of(value):
    """Lists of lists stay as the preset has them: no word says them."""
    if not isinstance(value, tuple) or not value:
        return type(value)
    if isinstance(value[0], tuple):
        return tyro.conf.Fixed[tuple]
    return GenericAlias(tuple, (type(value[0]), ...))
