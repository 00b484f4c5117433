# SPDX-License-Identifier: Apache-2.0
"""A module of Flax (NNX or Linen), Equinox or Haiku as pure functions of plain dictionaries."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plprune.functional.equinox import functional_equinox
from plprune.functional.haiku import functional_haiku
from plprune.functional.parts import Functional, paired, stateless

if TYPE_CHECKING:
    from plprune.functional.linen import functional_linen
    from plprune.functional.nnx import functional

_HOMES = {"functional": "nnx", "functional_linen": "linen"}


def __getattr__(name: str) -> Any:
    """Functions on Flax modules; Flax is imported only when they are used."""
    if name in _HOMES:
        return getattr(import_module(f"plprune.functional.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'plprune.functional' has no attribute {name!r}")


__all__ = [
    "Functional",
    "functional",
    "functional_equinox",
    "functional_haiku",
    "functional_linen",
    "paired",
    "stateless",
]
