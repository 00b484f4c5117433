# SPDX-License-Identifier: Apache-2.0
"""Long loops in stretches: the same bits as in one, with checkpoints between them.

A loop is a state, one row of inputs per step, and ``advance(state, rows) -> (state, infos)``, such
as a jitted `jax.lax.scan`. Each stretch is one call of it, and nothing that a step computes depends
on where the loop is cut, saved and resumed.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments import interruption

PARTS = 100  # Stretches of a loop, about, where `every` does not say.

Infos = dict[str, np.ndarray]
Advance = Callable[[Any, Any], tuple[Any, Any]]


class Here(NamedTuple):
    """How far a loop has come."""

    done: int  # Steps.
    state: Any
    infos: Infos  # Name -> [done, ...].
    over: bool  # `until` was met.


class Store(Protocol):
    """Where the checkpoints of one loop are."""

    def latest(self, state: Any) -> Here | None:
        """The newest that is whole and has a state like `state`; None where there is none."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save(self, here: Here) -> None:
        """Begin to save."""

    def place(self) -> str:
        """Where the newest is, in words; empty where there is none."""

    def finish(self) -> None:
        """Wait until the last is on disk."""


class Diverged(ValueError):
    """A number of the run is not finite: the step, its name and the last good checkpoint."""


def carried(
    name: str,
    state: Any,
    inputs: Any,
    advance: Advance,
    store: Store,
    *,
    task: Any = None,
    every: int | None = None,
    until: Callable[[Infos], bool] | None = None,
    may_diverge: bool = False,
) -> tuple[Any, Infos]:
    """The loop from its last checkpoint to its end; see `experiments.progress.Progress.carry`."""
    stops = stretches(_length(inputs), every)
    state = _strong(state)
    watch = _Watch(name, store, state, off=may_diverge)
    here = store.latest(state) or Here(0, state, {}, False)
    if task is not None and here.done:
        task.advance(here.done, **_shown(here.infos))
    try:
        for stop in (stop for stop in stops if stop > here.done):
            if here.over:
                break
            interruption.check()
            steps = stop - here.done
            state, seen = advance(here.state, _rows(inputs, here.done, stop))
            seen = _as_infos(seen, steps)
            watch.infos(here.done, seen)
            over = until is not None and bool(until(seen))
            # One assignment, for an interruption may fall between any two.
            here = Here(stop, _strong(state), _joined(here.infos, seen), over)
            if task is not None:
                task.advance(steps, **_shown(seen))
            if store.due():
                watch.save(here)
    except KeyboardInterrupt:
        watch.save(here)
        raise
    watch.state(here)
    return here.state, here.infos


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


class _Watch:
    """Lets nothing pass, and nothing be saved, that is not sound."""

    def __init__(self, name, store, state, *, off):
        self.name, self.store, self.off = name, store, off
        # A state may begin with NaN where it has room for what is yet to come.
        self.sound = [] if off else [not _has_nan(leaf) for leaf in _leaves(state)]

    def infos(self, done, seen):
        if self.off:
            return
        for metric, values in seen.items():
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            if len(bad):
                value = values[bad[0]].ravel()[~np.isfinite(values[bad[0]].ravel())][0]
                self._stop(f"{metric} is {value} at step {done + bad[0]:,}")

    def state(self, here):
        if not self._is_sound(here):
            self._stop(f"the state has nan after step {here.done:,}")

    def save(self, here):
        if here.done and self._is_sound(here):
            self.store.save(here)

    def _is_sound(self, here):
        pairs = zip(_leaves(here.state), self.sound, strict=False)
        return not any(sound and _has_nan(leaf) for leaf, sound in pairs)

    def _stop(self, what):
        place = self.store.place()
        last = f"the last good checkpoint is {place}" if place else "there is no checkpoint of it"
        raise Diverged(f"{self.name} diverged: {what}; {last}.")


def _leaves(state):
    import jax

    return jax.tree.leaves(state)


def _has_nan(leaf):
    import jax

    if not jax.dtypes.issubdtype(leaf.dtype, jax.numpy.inexact):
        return False
    return bool(jax.numpy.isnan(leaf).any())


def _strong(state):
    """Every leaf an array with a type of its own, as it comes back from disk."""
    import jax

    def strong(leaf):
        if not hasattr(leaf, "dtype") or getattr(leaf, "weak_type", False):
            return jax.numpy.asarray(leaf, dtype=jax.numpy.result_type(leaf))
        return leaf

    return jax.tree.map(strong, state)


def _length(inputs):
    if isinstance(inputs, int):
        return inputs
    sizes = {len(leaf) for leaf in _leaves(inputs)}
    if len(sizes) != 1:
        raise ValueError(f"inputs must have one leading axis, got {sorted(sizes)}.")
    return sizes.pop()


def _rows(inputs, start, stop):
    if isinstance(inputs, int):
        return range(start, stop)
    import jax

    def rows(leaf):
        # A slice of jax's array with Python's numbers would be compiled anew for every stretch.
        is_numpy = isinstance(leaf, np.ndarray)
        return leaf[start:stop] if is_numpy else _slice()(leaf, start, stop - start)

    return jax.tree.map(rows, inputs)


@cache
def _slice():
    import jax

    return jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2)


def _as_infos(seen, steps):
    """A mapping from names to NumPy arrays, whose leading axis is that of the steps."""
    if seen is None or seen == ():
        return {}
    from experiments.devices import on_host

    named = seen if isinstance(seen, Mapping) else seen._asdict()
    arrays = {key: np.array(values) for key, values in on_host(dict(named)).items()}
    for key, values in arrays.items():
        if values.ndim == 0 or len(values) > steps or values.dtype.kind not in "biuf":
            raise ValueError(
                f"{key} must be numbers of at most {steps} steps, "
                f"got {values.dtype}{list(values.shape)}."
            )
    return arrays


def _joined(before, seen):
    if not before:
        return seen
    return {key: np.concatenate([before[key], values]) for key, values in seen.items()}


def _shown(infos):
    """The last number of every line of numbers."""
    return {k: float(v[-1]) for k, v in infos.items() if v.ndim == 1 and len(v)}
