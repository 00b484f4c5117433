# SPDX-License-Identifier: Apache-2.0
"""Wall time of compiled functions, compilation apart."""

import time
from collections.abc import Callable
from typing import Any

import jax

from plprune.training import Stretch

_EXECUTABLES: dict[Any, Callable] = {}


def timed(function: Callable, *args: Any, **extra: Any) -> tuple[Any, float]:
    """What a jitted function or a `Stretch` returns, and the seconds that it ran.

    It is compiled first, once per function and shapes, and that time is not counted.
    """
    leaves, structure = jax.tree.flatten((args, extra))
    shapes = tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
    key = (function, structure, shapes)
    if key not in _EXECUTABLES:
        _EXECUTABLES[key] = _compiled(function, *args, **extra)
    start = time.perf_counter()
    result = jax.block_until_ready(_EXECUTABLES[key](*args, **extra))
    return result, time.perf_counter() - start


def _compiled(function, *args, **extra):
    if isinstance(function, Stretch):
        return function.compiled(*args, **extra)
    return function.lower(*args, **extra).compile()
