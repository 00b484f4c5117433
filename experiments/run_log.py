# SPDX-License-Identifier: Apache-2.0
"""What a run tells besides the screen: a log, TensorBoard's event files, a profile.

``log.jsonl`` has one JSON object a line, each with the seconds since 1970 as `time`: ``begin`` and
``end`` of a run, ``start``, ``step`` and ``stop`` of a task, and what was told. A resumed run goes
on in the same file. In ``tensorboard/`` every task, such as a method on a seed, is a run of its own
and its numbers have the same tags as those of the others, so that TensorBoard lays them over one
another.
"""

import json
import math
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import jax

TOLD = ("experiment", "preset", "command", "versions", "commit", "device", "seeds")
LOG, EVENTS, PROFILE = "log.jsonl", "tensorboard", "profile"
FLUSH_SECONDS = 10.0
PROFILE_SECONDS = 60.0  # A trace grows by megabytes a second; this much shows what there is to see.


class Log:
    """The log and the event files of one run; see `experiments.progress.Watcher`.

    What cannot be written is left out: a full disk must not stop a run that it may outlive.

    Args:
      folder: Of the run.
      say: Is told what `tell` is.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say, self._lock = folder, say, threading.Lock()
        self._file: TextIO | None = None
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            # A pipe in its place would wait for a reader.
            handle = os.open(folder / LOG, flags | os.O_NONBLOCK, 0o666)
            self._file = os.fdopen(handle, "a", encoding="utf-8")

    def write(self, what: str, **fields: Any) -> None:
        """One line: what it is, when, and its fields; a number that is not finite is null."""
        fields = {key: v.item() if hasattr(v, "item") else v for key, v in fields.items()}
        fields = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in fields.items()  # JSON has no NaN.
        }
        line = json.dumps({"time": round(time.time(), 3), "what": what} | fields)
        with self._lock, suppress(OSError):
            if self._file is not None:
                self._file.write(line + "\n")
                self._file.flush()  # A killed process leaves whole lines.

    def tell(self, text: str) -> None:
        """Say something to people, and log it."""
        self.say(text)
        self.write("told", text=text)

    @contextmanager
    def task(self, name: str, *, total: int) -> Iterator["_Steps"]:
        """Logs the steps of a task."""
        start, steps = time.perf_counter(), _Steps(self, name)
        self.write("start", task=name, total=total)
        try:
            yield steps
        finally:
            steps.events.close()
        seconds = round(time.perf_counter() - start, 3)
        self.write("stop", task=name, step=steps.done, seconds=seconds)

    def plan(self, pieces: int) -> None:
        """Logs how many pieces are to come."""
        self.write("plan", pieces=pieces)

    def finished(self, *, anew: bool) -> None:
        """Nothing: the steps have said it."""

    def close(self) -> None:
        """Write what is left."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()


class _Steps:
    """The numbers of one task, after so many steps."""

    def __init__(self, log, name):
        self.log, self.name, self.done = log, name, 0
        parts = [re.sub(r"[^\w.@-]+", "_", part).strip(".") or "_" for part in name.split("/")]
        self.events = Events(log.folder.joinpath(EVENTS, *parts))

    def advance(self, steps: int = 1, **numbers: float) -> None:
        self.done += steps
        self.log.write("step", task=self.name, step=self.done, **numbers)
        self.events.write(self.done, numbers)


class Events:
    """TensorBoard's event file of one task.

    Written at once by tensorboardX's `EventsWriter`: the thread of its `SummaryWriter` ends with a
    traceback where the disk is full, and the queue that it leaves keeps the process from ending.
    """

    def __init__(self, folder: Path):
        self.folder, self._writer, self._flushed = folder, None, 0.0

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers after so many steps, each under its own name."""
        if not numbers:
            return
        with suppress(OSError):
            self._writer = self._writer or self._opened()
            self._write(step, numbers)

    def close(self) -> None:
        """Write what is left."""
        with suppress(OSError):
            if self._writer is not None:
                self._writer.close()

    def _opened(self):
        from tensorboardX import event_file_writer  # Here: importing it takes a third of a second.

        self.folder.mkdir(parents=True, exist_ok=True)
        # Absolute: tensorboardX takes what comes before a colon for a scheme.
        prefix = str(self.folder.absolute() / "events")
        return event_file_writer.EventsWriter(prefix, f".{os.getpid()}")

    def _write(self, step, numbers):
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in numbers.items():
            event = Event(wall_time=time.time(), step=step, summary=scalar(name, float(value)))
            self._writer.write_event(event)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()


@contextmanager
def logged(
    folder: Path, header: Mapping[str, Any], say: Callable[[str], None] = print
) -> Iterator[Log]:
    """The log of the run of `header` from its beginning to its end, however it ends."""
    log, start = Log(folder, say), time.perf_counter()
    log.write("begin", **{key: header[key] for key in TOLD if key in header})
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


@contextmanager
def profiled(folder: Path) -> Iterator[None]:
    """A trace by jax's profiler in ``folder/profile`` of the block's first minute."""
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
