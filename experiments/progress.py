"""What a run says of itself while it runs, and what survives an interruption of it.

An experiment sees the `Progress` protocol only:

    with progress.task("gd/kappa, seed 0", total=6000) as task:
        task.advance(100, loss=0.1)
    accuracies = progress.once("gd/kappa, seed 0", lambda: train_and_measure(...))
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
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

Arrays = dict[str, np.ndarray]
Once = Callable[[str, Callable[[], Mapping]], Arrays]


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


def in_memory(name: str, work: Callable[[], Mapping]) -> Arrays:
    """The `once` that saves nothing: what `work` returns, as arrays."""
    del name
    return as_arrays(work())


def as_arrays(values: Mapping) -> Arrays:
    """Each value as an array; None is NaN. ValueError for anything that is not numbers."""
    arrays = {key: np.asarray(np.nan if v is None else v) for key, v in values.items()}
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{key!r} must be numbers, got {array.dtype}.")
    return arrays


class Silent:
    """Says nothing: `--quiet`, and the tests."""

    def __init__(self, once: Once = in_memory):
        self.once = once

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task that nobody watches."""
        del name, total
        yield self

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Nothing to show."""


class Lines:
    """One line when a task ends: for logs and pipes."""

    def __init__(self, console: Console, once: Once = in_memory):
        self.console, self.once = console, once

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task whose end is one line: its name, rate and latest numbers."""
        count = _Count(name, total)
        yield count
        self.console.print(count.line(), soft_wrap=True)


class Bars:
    """A bar with rate, time left and the latest numbers for each running task, on a terminal."""

    def __init__(self, bars: RichProgress, once: Once = in_memory):
        self.bars, self.once = bars, once

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
def reporting(console: Console, *, quiet: bool, once: Once = in_memory) -> Iterator[Progress]:
    """The progress that suits `console`: bars on a terminal, lines elsewhere, or nothing."""
    if quiet:
        yield Silent(once)
    elif not console.is_terminal:
        yield Lines(console, once)
    else:
        with _bars(console) as bars:
            yield Bars(bars, once)


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
