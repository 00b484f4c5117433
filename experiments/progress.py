# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself while it runs; an experiment sees the `Progress` alone.

progress.plan(16)
with progress.task("gd/kappa, seed 0", total=6000) as task:
    task.advance(100, loss=0.1)
    state, infos = progress.carry("gd/kappa, seed 0", state, batches, stretch, task=task)
accuracies = progress.once("gd/kappa, seed 0", lambda: train_and_measure(...))

"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

from experiments.long_loops import Advance, carried
from experiments.resuming import Arrays, Kept, Loop


class Task(Protocol):
    """One stretch of work of known length."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Move on by `steps` and show the latest `numbers`."""


class Watcher(Protocol):
    """Is told how a run goes on."""

    def task(self, name: str, *, total: int) -> AbstractContextManager[Task]:
        """A task of `total` steps; it is over when the block is left."""

    def plan(self, pieces: int) -> None:
        """So many pieces are to come."""

    def finished(self, *, anew: bool) -> None:
        """A piece is finished: done `anew`, or found."""


class Progress:
    """Where an experiment reports to, and what keeps its work; by default nobody and nothing."""

    def __init__(self, kept: Kept | None = None, *watchers: Watcher):
        self.kept, self.watchers = kept or Kept(), watchers

    def plan(self, pieces: int) -> None:
        """Say how many times `once` will be called, for the time left of the whole run."""
        for watcher in self.watchers:
            watcher.plan(pieces)

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task of `total` steps; it is over when the block is left."""
        with ExitStack() as stack:
            yield _Told([stack.enter_context(w.task(name, total=total)) for w in self.watchers])

    def once(self, name: str, work: Callable[[], Mapping]) -> Arrays:
        """The arrays of ``work()``, or those that an interrupted run of it left behind.

        Args:
          name: Names this piece of work within the run, such as ``gd/kappa, seed 0``.
          work: Returns a flat mapping from names to arrays, numbers or None (NaN in the result).
        """
        anew = []
        found = self.kept.once(name, lambda: anew.append(True) or work())
        for watcher in self.watchers:
            watcher.finished(anew=bool(anew))
        return found

    def loop(self, name: str) -> Loop:
        """The checkpoints of a loop that the caller runs, where it is more than a scan.

        with progress.loop("gd/kappa, seed 0") as loop:
            here = loop.latest(state)
            done, state, curves = here or (0, state, {})
            while done < total:
                ...
                loop.offer(done, state, curves)
        """
        return self.kept.loop(name)

    def carry(
        self,
        name: str,
        state: Any,
        inputs: Any,
        advance: Advance,
        *,
        task: Task | None = None,
        every: int | None = None,
        may_diverge: bool = False,
    ) -> tuple[Any, Arrays]:
        """A long loop in stretches, from the last checkpoint that an interruption left of it.

        The result is that of one call of `advance` on all of `inputs`, bit for bit. A checkpoint is
        saved in the background at most once a minute, between two stretches, and the newest three
        are kept until the piece around the loop is finished.

        Args:
          name: The loop's own within the run, such as ``gd/kappa, seed 0, training``.
          state: Before the first step: a tree of arrays, numbers and random keys.
          inputs: A tree of arrays with one row per step, or the number of steps.
          advance: ``(state, rows) -> (state, infos)`` for a stretch of steps, such as a jitted
            scan; `rows` is a slice of `inputs`, or a range. `infos` is a mapping, a named tuple or
            None; its arrays have one row per step, or fewer.
          task: Is told of every stretch, with the last number of each line of `infos`.
          every: Steps in a stretch; about a hundredth of the loop by default.
          may_diverge: Let numbers that are not finite pass.

        Returns:
          The last state, and the infos of all steps by name, as NumPy arrays.

        Raises:
          Diverged: at the first number that is not finite.
        """
        options = {"task": task, "every": every, "may_diverge": may_diverge}
        return carried(self.kept, name, state, inputs, advance, **options)


class _Told:
    """A task that all watchers hear of."""

    def __init__(self, tasks):
        self.tasks = tasks

    def advance(self, steps: int = 1, **numbers: float) -> None:
        for task in self.tasks:
            task.advance(steps, **numbers)
