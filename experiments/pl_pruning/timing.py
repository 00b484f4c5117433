# SPDX-License-Identifier: Apache-2.0
"""Wall time of compiled functions, compilation apart."""

import time
from collections.abc import Callable
from typing import Any

import jax

_EXECUTABLES: dict[Any, Callable] = {}


def timed(function: Callable, *args: Any) -> tuple[Any, float]:
    """What a jitted function returns, and the seconds that it ran.

    It is compiled first, once per function and shapes, and that time is not counted.
    """
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
    key = (function, structure, shapes)
    if key not in _EXECUTABLES:
        _EXECUTABLES[key] = function.lower(*args).compile()
    start = time.perf_counter()
    result = jax.block_until_ready(_EXECUTABLES[key](*args))
    return result, time.perf_counter() - start
