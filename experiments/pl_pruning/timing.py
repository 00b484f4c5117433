# SPDX-License-Identifier: Apache-2.0
"""Wall time of compiled functions, compilation apart."""

import time
from collections.abc import Callable
from typing import Any

import jax

from plprune.training import Stretch

_EXECUTABLES: dict[Any, Any] = {}


def timed(function: Callable, *args: Any, **extra: Any) -> tuple[Any, float]:
    """What a jitted function or a `Stretch` returns, and the seconds that it ran.

    It is compiled first, once per function and shapes, and that time is not counted.
    """
    executable = _executable(function, *args, **extra)
    start = time.perf_counter()
    result = jax.block_until_ready(executable(*args, **extra))
    return result, time.perf_counter() - start


def operations(function: Callable, *args: Any) -> float:
    """FLOPs of a jitted function as the compiler counts them: what a loop repeats counts once."""
    analysis = _executable(function, *args).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _executable(function, *args, **extra):
    leaves, structure = jax.tree.flatten((args, extra))
    shapes = tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
    key = (function, structure, shapes)
    if key not in _EXECUTABLES:
        _EXECUTABLES[key] = _compiled(function, *args, **extra)
    return _EXECUTABLES[key]


def _compiled(function, *args, **extra):
    if isinstance(function, Stretch):
        return function.compiled(*args, **extra)
    return function.lower(*args, **extra).compile()
