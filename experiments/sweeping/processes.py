# SPDX-License-Identifier: Apache-2.0
"""Where the cells of a sweep run: in processes of this machine, or on a Ray cluster.

Either way a cell is a process of its own, so that none takes another with it.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from experiments.interruption import PARENT
from plprune.extras import optional

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0  # Seconds that an interrupted cell has to save its state.


class Outcome(NamedTuple):
    """How an attempt at a cell ended."""

    code: int  # Of the process; negative: the signal that ended it.
    said: str  # The last line of its log.


class Pool(Protocol):
    """Runs command lines."""

    def submit(self, words: Sequence[str], log: Path) -> "Future[Outcome]":
        """Run ``python WORDS``, with its output in the file `log`, when there is room."""

    def stop(self) -> None:
        """Interrupt all that run, and wait until they have saved their state."""


class Processes:
    """So many processes at a time, each waited for by a thread."""

    def __init__(self, jobs: int):
        self._threads, self._stopped = ThreadPoolExecutor(jobs), threading.Event()

    def submit(self, words: Sequence[str], log: Path) -> "Future[Outcome]":
        """An attempt, when a thread is free."""
        return self._threads.submit(attempt, list(words), str(log), self._stopped)

    def stop(self) -> None:
        """Interrupt all; none is begun any more."""
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)


class Cluster:
    """One Ray task per cell; the cluster's machines must see the sweep's folder and this program.

    Args:
      address: Of the cluster; "local" starts one on this machine.
      gpus: Of each cell.

    Raises:
      ValueError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, gpus: float = 0.0):
        ray = optional("ray")
        self._ray, self._tasks = ray, []
        try:
            ray.init(
                address=None if address == "local" else address,
                log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
        except Exception as error:  # Of many types, by what is missing of the cluster.
            raise ValueError(f"--ray: {' '.join(str(error).split())}") from None
        # Ray would try again by itself; here the sweep does, and lists it.
        self._attempt: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(attempt)

    def submit(self, words: Sequence[str], log: Path) -> "Future[Outcome]":
        """A task; Ray has a queue of its own."""
        self._tasks.append(self._attempt.remote(list(words), str(log.absolute())))
        return self._tasks[-1].future()

    def stop(self) -> None:
        """Cancel all, as Ctrl-C would, and leave the cluster."""
        for task in self._tasks:
            self._ray.cancel(task)
        if self._tasks:
            self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=PATIENCE)
        self._ray.shutdown()


def attempt(words: list[str], log: str, stopped: threading.Event | None = None) -> Outcome:
    """One attempt at ``python WORDS`` in a process, interrupted once `stopped` is set."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "PYTHONPATH": path, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes from here alone.
        )
    try:
        while process.poll() is None:
            if stopped is not None and stopped.is_set():
                raise KeyboardInterrupt
            time.sleep(0.05)  # Ray interrupts Python code, not a system call.
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return Outcome(process.returncode, last_line(Path(log)))


def last_line(log: Path) -> str:
    """The last line of a file; empty where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""
