# SPDX-License-Identifier: Apache-2.0
"""What a run tells besides the screen: a log, TensorBoard's event files, a profile.

``log.jsonl`` has one JSON object a line, each with the seconds since 1970 as `time`: ``begin`` and
``end`` of a run, ``start``, ``step`` and ``stop`` of a task, and what was told. A resumed run goes
on in the same file. The event files in ``tensorboard/`` hold the numbers of the steps.
"""

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from experiments.carrying import Advance, Infos
from experiments.folders import EVENTS, LOG, PROFILE
from experiments.keeping import Arrays, Loop
from experiments.progress import Progress, Task

FLUSH_SECONDS = 10.0
PROFILE_SECONDS = 60.0  # A trace grows by megabytes a second; this much shows what there is to see.


class Log:
    """The log and the event files of one run.

    What cannot be written is left out: a full disk must not stop a run that it may outlive.
    """

    def __init__(self, folder: Path):
        self.folder, self._lock = folder, threading.Lock()
        self._file: TextIO | None = None
        self._events: _Events | None = None
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            # A pipe in its place would wait for a reader.
            handle = os.open(folder / LOG, flags | os.O_NONBLOCK, 0o666)
            self._file = os.fdopen(handle, "a", encoding="utf-8")

    def write(self, what: str, **fields: Any) -> None:
        """One line: what it is, when, and its fields; a number that is not finite is null."""
        line = json.dumps({"time": round(time.time(), 3), "what": what} | _finite(fields))
        with self._lock, suppress(OSError):
            if self._file is not None:
                self._file.write(line + "\n")
                self._file.flush()  # A killed process leaves whole lines.

    def numbers(self, task: str, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a task after so many steps."""
        self.write("step", task=task, step=step, **numbers)
        with self._lock, suppress(OSError):
            if numbers and self._events is None:
                self._events = _Events(self.folder / EVENTS)
            for name, value in numbers.items():
                self._events.write(f"{task}/{name}", step, float(value))

    def close(self) -> None:
        """Write what is left."""
        for file in (self._file, self._events):
            with suppress(OSError):
                if file is not None:
                    file.close()


class _Events:
    """An event file of TensorBoard, written at once: no thread, no queue that a full disk blocks.

    A tag has letters, digits and ``-./_``; whatever else a name holds becomes an underscore.
    """

    def __init__(self, folder: Path):
        from tensorboardX import event_file_writer  # Here: importing it takes a third of a second.

        folder.mkdir(parents=True, exist_ok=True)
        # Absolute: tensorboardX takes what comes before a colon for a scheme.
        prefix = str(folder.absolute() / "events")
        self._writer = event_file_writer.EventsWriter(prefix, f".{os.getpid()}")
        self._flushed = 0.0

    def write(self, tag: str, step: int, value: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        found = scalar(re.sub(r"[^\w./-]+", "_", tag), value)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=found))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


@contextmanager
def logged(folder: Path, **fields: Any) -> Iterator[Log]:
    """The log of a run from its beginning, with `fields`, to its end, however it ends."""
    log, start = Log(folder), time.perf_counter()
    log.write("begin", **fields)
    ended = "interrupted"
    try:
        yield log
        ended = "done"
    except Exception as error:
        ended = f"failed: {' '.join(str(error).split())}"
        raise
    finally:
        log.write("end", how=ended, seconds=round(time.perf_counter() - start, 3), **memory())
        log.close()


class Logged:
    """A `Progress` all of which is logged too."""

    def __init__(self, inner: Progress, log: Log):
        self.inner, self.log = inner, log

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator[Task]:
        """A task of `inner`."""
        start = time.perf_counter()
        self.log.write("start", task=name, total=total)
        with self.inner.task(name, total=total) as task:
            logged = _LoggedTask(task, name, self.log)
            yield logged
        seconds = round(time.perf_counter() - start, 3)
        self.log.write("stop", task=name, step=logged.done, seconds=seconds)

    def once(self, name: str, work: Callable[[], Mapping]) -> Arrays:
        """A piece of `inner`."""
        return self.inner.once(name, work)

    def carry(
        self, name: str, state: Any, inputs: Any, advance: Advance, **options: Any
    ) -> tuple[Any, Infos]:
        """A loop of `inner`."""
        return self.inner.carry(name, state, inputs, advance, **options)

    def loop(self, name: str) -> Loop:
        """A loop of `inner` that its caller runs."""
        return self.inner.loop(name)


class _LoggedTask:
    def __init__(self, task, name, log):
        self.task, self.name, self.log, self.done = task, name, log, 0

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.task.advance(steps, **numbers)
        self.done += steps
        self.log.numbers(self.name, self.done, numbers)


@contextmanager
def profiled(folder: Path, *, on: bool) -> Iterator[None]:
    """A trace by jax's profiler in ``folder/profile`` of the block's first minute."""
    if not on:
        yield
        return
    import jax

    jax.profiler.start_trace(str(folder / PROFILE))
    running = threading.Lock()  # Taken by whoever stops it first.

    def stop() -> None:
        if running.acquire(blocking=False):
            jax.profiler.stop_trace()

    timer = threading.Timer(PROFILE_SECONDS, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        stop()


def memory() -> dict[str, int]:
    """Bytes at the most so far: of the process, and of its devices where they tell."""
    import resource
    import sys

    import jax

    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in told if "peak_bytes_in_use" in stats]
    return found | ({"device_peak_bytes": max(peaks)} if peaks else {})


def spent(seconds: float) -> str:
    """Time and memory in a line, for people."""
    found = memory()
    line = (
        f"Done in {seconds:,.1f} s, with at most {found['peak_bytes'] / 2**20:,.0f} MiB of memory"
    )
    if "device_peak_bytes" in found:
        line += f" and {found['device_peak_bytes'] / 2**20:,.0f} MiB of a device's"
    return f"{line}."


def _finite(fields):
    """JSON has no NaN; a reader in another language would choke on Python's."""
    plain = {key: _plain(value) for key, value in fields.items()}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in plain.items()
    }


def _plain(value):
    return value.item() if hasattr(value, "item") else value
