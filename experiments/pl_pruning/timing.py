# SPDX-License-Identifier: Apache-2.0
"""Wall time of compiled functions, compilation apart."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from plprune.training import loop_minibatches

_EXECUTABLES: dict[Any, Callable] = {}


@dataclass(frozen=True, eq=False)
class Looped:
    """A jitted step, called for every minibatch: see `plprune.training.loop_minibatches`."""

    one: Callable  # (train_state, data, chosen, *, rate)

    def __call__(self, train_state, data, indices, rate):
        """The state after those steps, and their infos."""
        return loop_minibatches(self.one, train_state, data, indices, rate=rate)

    def compiled(self, train_state, data, indices, rate) -> "Looped":
        """The same, compiled for arrays of these shapes."""
        return Looped(self.one.lower(train_state, data, indices[0], rate=rate).compile())


def timed(function: Callable, *args: Any) -> tuple[Any, float]:
    """What a jitted or looped function returns, and the seconds that it ran.

    It is compiled first, once per function and shapes, and that time is not counted.
    """
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
    key = (function, structure, shapes)
    if key not in _EXECUTABLES:
        looped = isinstance(function, Looped)
        _EXECUTABLES[key] = function.compiled(*args) if looped else function.lower(*args).compile()
    start = time.perf_counter()
    result = jax.block_until_ready(_EXECUTABLES[key](*args))
    return result, time.perf_counter() - start
