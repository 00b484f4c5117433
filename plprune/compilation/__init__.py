# SPDX-License-Identifier: Apache-2.0
"""Plain calls that compile once, and programs that outlive the process."""

from plprune.compilation.cache import (
    are_concrete,
    compile_once,
    forget_compiled,
    recall,
    run_once,
)
from plprune.compilation.identity import UnknownError, identity, is_concrete
from plprune.compilation.persistent import disable_compilation_cache, enable_compilation_cache

__all__ = [
    "UnknownError",
    "are_concrete",
    "compile_once",
    "disable_compilation_cache",
    "enable_compilation_cache",
    "forget_compiled",
    "identity",
    "is_concrete",
    "recall",
    "run_once",
]
