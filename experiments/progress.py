# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself while it runs, and what survives an interruption of it.

An experiment sees the `Progress` protocol only:

    with progress.task("gd/kappa, seed 0", total=6000) as task:
        task.advance(100, loss=0.1)
        state, infos = progress.carry("gd/kappa, seed 0", state, batches, stretch, task=task)
    accuracies = progress.once("gd/kappa, seed 0", lambda: train_and_measure(...))
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from experiments.carrying import Advance, Infos
from experiments.keeping import Arrays, InMemory, Loop, OnDisk

Kept = InMemory | OnDisk


class Task(Protocol):
    """One stretch of work of known length."""

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Move on by `steps` and show the latest `numbers`."""


class Progress(Protocol):
    """Where an experiment reports to."""

    def task(self, name: str, *, total: int) -> AbstractContextManager[Task]:
        """A task of `total` steps; it is over when the block is left."""

    def once(self, name: str, work: Callable[[], Mapping]) -> Arrays:
        """The arrays of ``work()``, or those that an interrupted run of it left behind.

        Args:
          name: Names this piece of work within the run, such as ``gd/kappa/0``.
          work: Returns a flat mapping from names to arrays, numbers or None (NaN in the result).
        """

    def carry(
        self,
        name: str,
        state: Any,
        inputs: Any,
        advance: Advance,
        *,
        task: Task | None = None,
        every: int | None = None,
        until: Callable[[Infos], bool] | None = None,
        may_diverge: bool = False,
    ) -> tuple[Any, Infos]:
        """A long loop in stretches, from the last checkpoint that an interruption left of it.

        The result is that of one call of `advance` on all of `inputs`, bit for bit. A checkpoint is
        saved in the background at most once a minute, between two stretches, and the newest three
        are kept until the piece around the loop is finished.

        Args:
          name: The loop's own within the run, such as ``gd/kappa/0/training``.
          state: Before the first step: a tree of arrays, numbers and random keys.
          inputs: A tree of arrays with one row per step, or the number of steps.
          advance: ``(state, rows) -> (state, infos)`` for a stretch of steps, such as a jitted
            scan; `rows` is a slice of `inputs`, or a range. `infos` is a mapping, a named tuple or
            None; its arrays have one row per step, or fewer.
          task: Is told of every stretch, with the last number of each line of `infos`.
          every: Steps in a stretch; about a hundredth of the loop by default.
          until: Says from the infos of a stretch that the loop is over after it.
          may_diverge: Let numbers that are not finite pass.

        Returns:
          The last state, and the infos of all steps by name, as NumPy arrays.

        Raises:
          Diverged: at the first number that is not finite; names its step and the last checkpoint.
        """

    def loop(self, name: str) -> Loop:
        """The checkpoints of a loop that the caller runs, where it is more than a scan.

        with progress.loop("gd/kappa/0") as loop:
            here = loop.latest(state)
            done, state, curves = (here.done, here.state, here.infos) if here else (0, state, {})
            while done < total:
                ...
                loop.offer(done, state, curves)
        """


class Silent:
    """Says nothing: `--quiet`, and the tests."""

    def __init__(self, kept: Kept | None = None):
        self.once, self.carry, self.loop = _all(kept)

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task that nobody watches."""
        del name, total
        yield self

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Nothing to show."""


class Lines:
    """One line when a task ends: for logs and pipes."""

    def __init__(self, console: Console, kept: Kept | None = None):
        self.console = console
        self.once, self.carry, self.loop = _all(kept)

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task whose end is one line: its name, rate and latest numbers."""
        count = _Count(name, total)
        yield count
        self.console.print(count.line(), soft_wrap=True)


class Bars:
    """A bar with rate, time left and the latest numbers for each running task, on a terminal."""

    def __init__(self, bars: RichProgress, kept: Kept | None = None):
        self.bars = bars
        self.once, self.carry, self.loop = _all(kept)

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task with a bar, which makes room for one line when the task ends."""
        bar = _Bar(self.bars, self.bars.add_task(name, total=total, told=""), _Count(name, total))
        try:
            yield bar
        finally:
            self.bars.remove_task(bar.bar)
        self.bars.console.print(bar.count.line(), soft_wrap=True)


class _Bar:
    def __init__(self, bars, bar, count):
        self.bars, self.bar, self.count = bars, bar, count

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.count.advance(steps, **numbers)
        self.bars.update(self.bar, advance=steps, told=self.count.told)


class _Count:
    """What a task has done so far, and the line that sums it up."""

    def __init__(self, name, total):
        self.name, self.total, self.done, self.told = name, total, 0, ""
        self.start = time.perf_counter()

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.done += steps
        self.told = _tell(numbers) or self.told

    def line(self) -> Text:
        seconds = time.perf_counter() - self.start
        rate = _rate(self.done / max(seconds, 1e-9))
        steps = f"{self.done:,} of {self.total:,} in {seconds:.1f} s, {rate}"
        return Text(f"{self.name}: {steps}  {self.told}".rstrip())


@contextmanager
def reporting(console: Console, *, quiet: bool, kept: Kept | None = None) -> Iterator[Progress]:
    """The progress that suits `console`: bars on a terminal, lines elsewhere, or nothing."""
    if quiet:
        yield Silent(kept)
    elif not console.is_terminal:
        yield Lines(console, kept)
    else:
        with _bars(console) as bars:
            yield Bars(bars, kept)


def _all(kept):
    kept = kept or InMemory()
    return kept.once, kept.carry, kept.loop


def _bars(console):
    return RichProgress(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=20),
        MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=console,
    )  # fmt: skip


class _Rate(ProgressColumn):
    def render(self, task):
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed), style="progress.data.speed")


def _rate(speed):
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"


def _tell(numbers):
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
