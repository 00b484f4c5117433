# SPDX-License-Identifier: Apache-2.0
"""Where the cells of a sweep run: in processes of this machine, or on a Ray cluster."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

ROOT = Path(__file__).parents[1]
# Runs the module that it is told of, open to Ctrl-C, which Ray's workers block. On Linux it ends
# with its worker, however that one ends: a cell left behind would keep its folder from the next.
TIED = """
import ctypes, os, runpy, signal, sys
parent, module = int(sys.argv[1]), sys.argv[3]
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != parent:
    sys.exit("the process that started this one is gone")
del sys.argv[:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
PATIENCE = 60.0  # Seconds that an interrupted cell has to save its state.


class Outcome(NamedTuple):
    """How an attempt at a cell ended."""

    name: str
    code: int  # Of the process; negative: the signal that ended it.
    said: str  # The last line on stderr.


class Pool(Protocol):
    """Runs command lines."""

    def has_room(self) -> bool:
        """Whether another may be started."""

    def start(self, name: str, words: Sequence[str], log: Path) -> None:
        """Run ``python WORDS``, with its output in the file `log`."""

    def ended(self) -> list[Outcome]:
        """Those that ended since the last call; waits a little where there is none."""

    def stop(self) -> None:
        """Interrupt all that run, and wait until they have saved their state."""


class Processes:
    """So many processes at a time."""

    def __init__(self, jobs: int):
        self.jobs, self._running = jobs, {}

    def has_room(self) -> bool:
        """Whether fewer than `jobs` run."""
        return len(self._running) < self.jobs

    def start(self, name: str, words: Sequence[str], log: Path) -> None:
        """Start a process in a session of its own: Ctrl-C comes through `stop` alone."""
        self._running[name] = (_started(words, log), log)

    def ended(self) -> list[Outcome]:
        """Those that ended since."""
        over = [name for name, (process, _) in self._running.items() if process.poll() is not None]
        if not over:
            time.sleep(0.05)
        found = []
        for name in over:
            process, log = self._running.pop(name)
            found.append(Outcome(name, process.returncode, last_line(log)))
        return found

    def stop(self) -> None:
        """SIGINT to all; SIGKILL to those that have not ended in time."""
        for process, _ in self._running.values():
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        for process, _ in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class RayCluster:
    """One Ray task per cell; the cluster's machines must see the sweep's folder and this program.

    Raises:
      ValueError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, gpus: float = 0.0):
        try:
            import ray
        except ImportError:
            raise ValueError("--ray needs Ray: pip install 'plprune[ray]'.") from None
        self._ray, self._running = ray, {}
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(f"--ray: {' '.join(str(error).split())}") from None
        # Ray would try again by itself; here the sweep does, and lists it.
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(attempt)

    def has_room(self) -> bool:
        """Always: Ray has a queue of its own."""
        return True

    def start(self, name: str, words: Sequence[str], log: Path) -> None:
        """Submit a task."""
        self._running[self._task.remote(list(words), str(log.absolute()))] = name

    def ended(self) -> list[Outcome]:
        """Those that ended since."""
        over, _ = self._ray.wait(list(self._running), num_returns=1, timeout=0.5)
        found = []
        for task in over:
            name = self._running.pop(task)
            try:
                code, said = self._ray.get(task)
            except Exception as error:  # The machine is gone, or Ray's worker.
                code, said = 1, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            found.append(Outcome(name, code, said))
        return found

    def stop(self) -> None:
        """Cancel all, as Ctrl-C would, and leave the cluster."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=PATIENCE)
        self._ray.shutdown()


def attempt(words: list[str], log: str) -> tuple[int, str]:
    """One attempt at ``-m MODULE ...`` in a process: its exit code and the last line of its log."""
    process = _started(["-c", TIED, str(os.getpid()), *words], Path(log))
    try:
        while process.poll() is None:
            time.sleep(0.05)  # Ray interrupts Python code, not a system call.
        return process.returncode, last_line(Path(log))
    except KeyboardInterrupt:  # So `RayCluster.stop` arrives here.
        process.send_signal(signal.SIGINT)
        return process.wait(), "interrupted"


def last_line(log: Path) -> str:
    """The last line of a file; empty where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


def _started(words, log):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
