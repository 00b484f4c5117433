# SPDX-License-Identifier: Apache-2.0
"""Plain calls that compile once."""

from plprune.compilation.cache import compile_once, forget_compiled, run
from plprune.compilation.identity import UnknownError, identity

__all__ = ["UnknownError", "compile_once", "forget_compiled", "identity", "run"]
