# SPDX-License-Identifier: Apache-2.0
"""Long loops in stretches: the same bits as in one, with checkpoints between them.

A loop is a state, one row of inputs per step, and ``advance(state, rows) -> (state, infos)``, such
as a jitted `jax.lax.scan`. Each stretch is one call of it, and nothing that a step computes depends
on where the loop is cut, saved and resumed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.resuming import Arrays, Kept
from experiments.sharding import on_host

PARTS = 100  # Stretches of a loop, about, where `every` does not say.
Advance = Callable[[Any, Any], tuple[Any, Any]]
_slice = jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2)


class Diverged(ValueError):
    """A number of the run is not finite: its name and step."""


def carried(
    kept: Kept,
    name: str,
    state: Any,
    inputs: Any,
    advance: Advance,
    *,
    task: Any = None,
    every: int | None = None,
    may_diverge: bool = False,
) -> tuple[Any, Arrays]:
    """The last state of a loop and the infos of all its steps; see `Progress.carry`."""
    stops = stretches(_length(inputs), every)
    state, infos, done = _strong(state), {}, 0
    with kept.loop(name) as loop:
        if here := loop.latest(state):
            done, state, infos = here
            _tell(task, done, infos)
        for stop in (stop for stop in stops if stop > done):
            state, seen = advance(state, _rows(inputs, done, stop))
            state, seen = _strong(state), _as_infos(seen, stop - done)
            if not may_diverge:
                _check_finite(name, done, seen)
            infos = {k: np.concatenate([infos[k], v]) for k, v in seen.items()} if infos else seen
            loop.offer(stop, state, infos)
            _tell(task, stop - done, seen)
            done = stop
    return state, infos


def stretches(length: int, every: int | None = None) -> list[int]:
    """Where each stretch ends: after `every` steps, or about `PARTS` times in the loop.

    Equal lengths are preferred, because each length is compiled; none is a single step, which XLA
    compiles as no loop at all and may round otherwise.
    """
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1, got {every}.")
    if every is None:
        even = [n for n in range(PARTS, PARTS // 10, -1) if length % n == 0 and length // n > 1]
        every = length // even[0] if even else -(-length // PARTS)
    every = max(2, every)
    stops = [*range(every, length, every), length] if length else []
    if len(stops) > 1 and stops[-1] - stops[-2] == 1:
        del stops[-2]
    return stops


def _check_finite(name, done, seen):
    for metric, values in seen.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            value, step = values[tuple(bad[0])], done + bad[0][0]
            raise Diverged(f"{name} diverged: {metric} is {value} at step {step:,}.")


def _strong(state):
    """Every leaf an array with a type of its own, as it comes back from disk."""

    def strong(leaf):
        if not hasattr(leaf, "dtype") or getattr(leaf, "weak_type", False):
            return jax.numpy.asarray(leaf, dtype=jax.numpy.result_type(leaf))
        return leaf

    return jax.tree.map(strong, state)


def _length(inputs):
    if isinstance(inputs, int):
        return inputs
    sizes = {len(leaf) for leaf in jax.tree.leaves(inputs)}
    if len(sizes) != 1:
        raise ValueError(f"inputs must have one leading axis, got {sorted(sizes)}.")
    return sizes.pop()


def _rows(inputs, start, stop):
    if isinstance(inputs, int):
        return range(start, stop)

    def rows(leaf):
        # A slice of jax's array with Python's numbers would be compiled anew for every stretch.
        is_numpy = isinstance(leaf, np.ndarray)
        return leaf[start:stop] if is_numpy else _slice(leaf, start, stop - start)

    return jax.tree.map(rows, inputs)


def _as_infos(seen, steps):
    """A mapping from names to NumPy arrays, whose leading axis is that of the steps."""
    if seen is None or seen == ():
        return {}
    named = seen if isinstance(seen, Mapping) else seen._asdict()
    arrays = on_host(dict(named))
    for key, values in arrays.items():
        if values.ndim == 0 or len(values) > steps or values.dtype.kind not in "biuf":
            raise ValueError(
                f"{key} must be numbers of at most {steps} steps, "
                f"got {values.dtype}{list(values.shape)}."
            )
    return arrays


def _tell(task, steps, infos):
    """The last number of every line of numbers."""
    if task is not None and steps:
        numbers = {k: float(v[-1]) for k, v in infos.items() if v.ndim == 1 and len(v)}
        task.advance(steps, **numbers)
