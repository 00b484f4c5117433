# SPDX-License-Identifier: Apache-2.0
"""Fields of configurations. Imports nothing heavy: ``--help`` reads every configuration."""

from dataclasses import field
from typing import Any


def flag(text: str, default: Any) -> Any:
    """A field that the command line can override, with what ``--help`` says of it."""
    return field(default=default, metadata={"flag": text})
