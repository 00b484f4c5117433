# SPDX-License-Identifier: Apache-2.0
"""Any field of a configuration, by its name and in words: ``--set NAME=VALUE``, and grids."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from types import GenericAlias, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def assignments(words: Iterable[str]) -> dict[str, str]:
    """Names and values of words ``NAME=VALUE``.

    Raises:
      ValueError: a word of another form, or a name that comes twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"settings must be NAME=VALUE, got {word!r}.")
        if name in found:
            raise ValueError(f"{name} is set twice.")
        found[name] = value
    return found


def changed(config: Any, texts: Mapping[str, str]) -> Any:
    """`config` with other values, each read as its field's type.

    A name may lead inside: ``network.kind``, ``network.sizes.hidden`` for one of several named
    values, or ``regimes.0.batch_size`` for the first of them.

    Raises:
      ValueError: no such field, one that words cannot hold, or a value of another type.
    """
    for name, text in texts.items():
        path = name.replace("-", "_").split(".")
        config = _with(config, None, path, lambda hint, n=name, t=text: _read(n, hint, t))
    return config


def alternatives(config: Any, name: str, text: str) -> list[str]:
    """The values of one axis of a grid: with commas, or with semicolons where a value has commas.

    Raises:
      ValueError: as `changed`; an empty or repeated value.
    """
    hints: list[Any] = []
    _with(config, None, name.replace("-", "_").split("."), hints.append)
    is_list = get_origin(hints[0]) is tuple
    parts = [part.strip() for part in text.split(";" if is_list else ",")]
    for part in parts:
        changed(config, {name: part})
    if "" in parts or len(set(parts)) < len(parts):
        raise ValueError(f"values of {name} must be given once each, got {text!r}.")
    return parts


def differences(config: Any, default: Any, path: str = "") -> dict[str, Any]:
    """Where `config` is not `default`: names, as `changed` takes them, and values."""
    if config == default:
        return {}
    if dataclasses.is_dataclass(config) and type(config) is type(default):
        names = [field.name for field in dataclasses.fields(config)]
        pairs = [(name, getattr(config, name), getattr(default, name)) for name in names]
    elif _is_named(config) and _is_named(default) and [*dict(config)] == [*dict(default)]:
        pairs = [(name, value, dict(default)[name]) for name, value in config]
    elif _is_list(config) and _is_list(default) and len(config) == len(default):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(config, default, strict=True))]
    else:
        return {path: config}
    found = {}
    for name, value, usual in pairs:
        found |= differences(value, usual, f"{path}.{name}" if path else name)
    return found


def written(value: Any) -> str:
    """The words that `changed` reads as `value`; ValueError where there are none."""
    if isinstance(value, tuple):
        return ",".join(written(item) for item in value)
    if isinstance(value, bool | NoneType):
        return str(value).lower()
    if isinstance(value, int | float | str):
        return str(value)
    raise ValueError(f"{type(value).__name__} cannot be written on a command line.")


def _with(value, hint, path, read):
    """`value` with what `read` makes of the type at the end of `path` in its place."""
    if not path:
        return read(hint)
    head, *rest = path
    if dataclasses.is_dataclass(value):
        hints = get_type_hints(type(value))
        if head not in hints:
            raise ValueError(f"there is no setting {head!r}; there are {', '.join(hints)}.")
        return dataclasses.replace(
            value, **{head: _with(getattr(value, head), hints[head], rest, read)}
        )
    if _is_named(value):
        named = dict(value)
        if head not in named:
            raise ValueError(f"there is no setting {head!r}; there are {', '.join(named)}.")
        named[head] = _with(named[head], _type_of(named[head]), rest, read)
        return tuple(named.items())
    if _is_list(value):
        if not head.isdecimal() or int(head) >= len(value):
            raise ValueError(f"{head!r} must be a number from 0 to {len(value) - 1}.")
        items = list(value)
        items[int(head)] = _with(items[int(head)], None, rest, read)
        return tuple(items)
    raise ValueError(f"there is no setting inside of {value!r:.40}, got {'.'.join(path)!r}.")


def _is_list(value):
    """A tuple of settings, not of values."""
    return isinstance(value, tuple) and bool(value) and all(map(dataclasses.is_dataclass, value))


def _is_named(value):
    """A tuple of names and values, which are of the types that they have."""
    return isinstance(value, tuple) and bool(value) and all(map(_is_pair, value))


def _is_pair(item):
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def _type_of(value):
    if isinstance(value, tuple) and value:
        return GenericAlias(tuple, (type(value[0]), ...))
    return type(value)


def _read(name, hint, text):
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(name, arguments[0], item.strip()) for item in text.split(",") if text)
    if origin is Literal:
        return _one_of(name, {written(choice): choice for choice in arguments}, text)
    if origin in (Union, UnionType) and NoneType in arguments and len(arguments) == 2:
        (kind,) = set(arguments) - {NoneType}
        return None if text.lower() == "none" else _read(name, kind, text)
    if hint is bool:
        return _one_of(name, {"true": True, "false": False}, text.lower())
    if hint in (int, float):
        return _number(name, hint, text)
    if hint is str:
        return text
    raise ValueError(f"{name} cannot be set on the command line.")


def _one_of(name, choices, text):
    if text not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {text!r}.")
    return choices[text]


def _number(name, kind, text):
    try:
        value = kind(text)
    except ValueError:
        said = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {said}, got {text!r}.") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {text}.")
    return value
