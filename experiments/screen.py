# SPDX-License-Identifier: Apache-2.0
"""Progress for people, by rich: bars on a terminal, lines in logs and pipes.

A terminal shows a bar of all pieces that are planned above one of the present task. Until a task
has taken its first step, and whenever jax compiles, the seconds stand in place of a rate: no bar
stands still at nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jax import monitoring
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from experiments.interruption import ClosedPipe

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # What follows is compilation,
COMPILED = "/jax/core/compile/backend_compile_duration"  # until this is told.


class PlainConsole(Console):
    """Prints words as they are: names of folders may have brackets and colons."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """What rich calls where nobody reads any more."""
        self.quiet = True
        raise ClosedPipe


class Screen:
    """Watches a run; see `experiments.progress.Watcher`.

    Args:
      console: Where it is shown.
      figures: How many are run; of several, the upper bar counts them, else the run's pieces.
    """

    def __init__(self, console: Console, figures: int = 1):
        self.compiling, self.figures, self.overall = Compiling(), figures, Overall()
        self.bars = Bars(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=20),
            _Left(), TextColumn("{task.fields[told]}", markup=False),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._all: Any = None
        if figures > 1:
            self._begin("figures", figures)

    def plan(self, pieces: int) -> None:
        """A bar of all pieces, above that of the present task."""
        if self.figures == 1 and pieces > 1:
            self._begin("all", pieces)

    def finished(self, *, anew: bool) -> None:
        """Moves the bar of all pieces on."""
        if self.figures == 1:
            self._move(anew)

    def figure_finished(self, *, anew: bool) -> None:
        """Moves the bar of all figures on."""
        if self.figures > 1:
            self._move(anew)

    def _begin(self, name, total):
        self.overall = Overall(total)
        self._all = self.bars.add_task(name, total=None, told="", left=self.overall.left)

    def _move(self, anew):
        self.overall.finished(anew=anew)
        if self._all is not None:
            done, total = self.overall.done, self.overall.total
            self.bars.update(self._all, completed=done, total=total)

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator["Bar"]:
        """A task with a bar, which makes room for one line when the task ends."""
        bar = Bar(name, total, self.bars, self.compiling)
        try:
            yield bar
        finally:
            self.bars.remove_task(bar.number)
        self.bars.console.print(bar.line(), soft_wrap=True)


@contextmanager
def on_screen(
    console: Console, figures: int = 1, *, is_quiet: bool = False
) -> Iterator[Screen | None]:
    """A `Screen` for the time of the block; None for those who want to see nothing."""
    if is_quiet:
        yield None
        return
    screen = Screen(console, figures)
    monitoring.register_event_duration_secs_listener(screen.compiling.hear)
    try:
        with screen.bars:
            yield screen
    finally:
        monitoring.unregister_event_duration_listener(screen.compiling.hear)


@dataclass
class Compiling:
    """Since when jax has been compiling; None while it is not."""

    since: float | None = None

    def hear(self, event: str, *_: Any, **__: Any) -> None:
        """What `jax.monitoring` tells."""
        if event == LOWERED:
            self.since = time.monotonic()
        elif event == COMPILED:
            self.since = None


@dataclass
class Overall:
    """How many pieces are finished, and how long the others take at the pace so far."""

    total: int = 0
    done: int = 0
    anew: int = 0  # Of those; what was found says nothing of the pace.
    start: float = field(default_factory=time.monotonic)

    def finished(self, *, anew: bool) -> None:
        """Count a piece."""
        self.done, self.anew = self.done + 1, self.anew + anew

    def left(self) -> str:
        """What stands beside the bar: the time left, or so far where nobody can say."""
        seconds, pieces = time.monotonic() - self.start, self.total - self.done
        pace = f"about {_span(pieces * seconds / self.anew)} left" if self.anew else _span(seconds)
        return f"{self.done:,} of {self.total:,}, {pace}"


class Bar:
    """What a task has done so far, on a bar and in a line."""

    def __init__(self, name: str, total: int, bars: Bars, compiling: Compiling):
        self.name, self.total, self.bars, self.compiling = name, total, bars, compiling
        self.done, self.told = 0, ""
        self.start = self.first = time.monotonic()
        # Without a total, a bar pulses: until the first step, nobody knows how far it is.
        self.number = bars.add_task(name, total=None, told="", left=self.left)

    def advance(self, steps: int = 1, **numbers: float) -> None:
        """Move on, and show the latest numbers."""
        if not self.done:
            self.first = time.monotonic()  # What came before is no measure of the pace.
        self.done += steps
        told = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self.told = told or self.told
        if self.done:
            self.bars.update(self.number, advance=steps, told=self.told, total=self.total)

    def left(self) -> str:
        """What stands beside the bar."""
        now, since = time.monotonic(), self.compiling.since
        if since is not None:
            return f"compiling ... {_span(now - since)}"
        if not self.done:
            return f"starting ... {_span(now - self.start)}"
        pace = self.done / max(now - self.first, 1e-9)
        left = _span(max(0, self.total - self.done) / pace)
        return f"{self.done:,} of {self.total:,}, {_pace(pace)}, {left} left"

    def line(self) -> Text:
        """What remains of the task when it is over."""
        seconds = time.monotonic() - self.start
        pace = _pace(self.done / max(seconds, 1e-9))
        line = f"{self.name}: {self.done:,} of {self.total:,} in {seconds:.1f} s, {pace}"
        return Text(f"{line}  {self.told}".rstrip())


class _Left(ProgressColumn):
    def render(self, task):
        return Text(task.fields["left"](), style="progress.remaining")


def _span(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _pace(speed):
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"
