# SPDX-License-Identifier: Apache-2.0
"""Packages that only some functions need: imported there, or named with what installs them."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Extra -> what it brings, under the names that it is imported by.
EXTRAS = {
    "cache": ("platformdirs", "filelock"),
    "data": ("tensorflow_datasets", "array_record", "importlib_resources", "PIL", "sklearn"),
    "storage": ("orbax", "tensorstore"),
    "safetensors": ("safetensors",),
    "pictures": ("matplotlib",),
    "experiments": ("tyro", "rich", "jinja2", "tensorboardX"),
    "ray": ("ray",),
    "prepare": ("tensorflow",),
    "equinox": ("equinox",),
    "haiku": ("haiku",),
}  # fmt: skip
_CHECKOUT = Path(__file__).parents[1]  # Where plprune is imported from a copy of its repository.


class MissingExtraError(ModuleNotFoundError, ValueError):
    """A package of an extra is not installed, so that what was asked for cannot be done here."""


def optional(module: str, *others: str) -> Any:
    """A module that an extra brings, imported now.

    Args:
      module: Its name, such as "sklearn.datasets".
      *others: Modules that it needs, but not before it is used.

    Raises:
      MissingExtraError: one of them is not installed; says which, and the line that installs it.
    """
    for name in (module, *others):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise named(error, extra_of(name)) from error
    return import_module(module)


def named(error: ModuleNotFoundError, extra: str | None) -> ModuleNotFoundError:
    """What installs the module that `error` misses; the error itself where no extra brings it."""
    if extra is None:
        return error
    absent = (error.name or "").partition(".")[0]
    told = f"{absent} is not installed; the extra {extra!r} brings it: {install_line(extra)}"
    return MissingExtraError(told, name=absent)


def missing(extra: str) -> tuple[str, ...]:
    """Modules of an extra that are not here; none of them is imported."""
    return tuple(module for module in EXTRAS[extra] if find_spec(module) is None)


def extra_of(module: str) -> str | None:
    """The extra that brings a module, if one does."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def install_line(extra: str) -> str:
    """What installs an extra of this plprune, from the current folder."""
    if not (_CHECKOUT / "setup.cfg").is_file():
        return f'pip install "plprune[{extra}]"'
    here = "." if Path.cwd() == _CHECKOUT else _CHECKOUT
    return f'pip install -e "{here}[{extra}]"'
