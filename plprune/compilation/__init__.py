# SPDX-License-Identifier: Apache-2.0
"""Plain calls that compile once."""

from plprune.compilation.cache import (
    are_concrete,
    compile_once,
    forget_compiled,
    recall,
    run_once,
)
from plprune.compilation.identity import UnknownError, identity, is_concrete

__all__ = [
    "UnknownError",
    "are_concrete",
    "compile_once",
    "forget_compiled",
    "identity",
    "is_concrete",
    "recall",
    "run_once",
]
