# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what may be written there, and what an interrupted run left behind.

While a run is under way its folder has ``unfinished/``: the header of the record to come in
``run.json``, and what `experiments.resuming` keeps. It goes when the record is complete.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from experiments.resuming import SAVE_EVERY, Kept
from experiments.run_log import EVENTS, LOG, PROFILE, Log, logged
from experiments.sharding import ALONE, Devices
from plprune.data.files import text
from plprune.records import CURVES, RECORD, read_record, write_file

Header = dict[str, Any]  # A record without its results.
LOCK, UNFINISHED, HEADER = ".lock", "unfinished", "unfinished/run.json"
PRODUCTS = (RECORD, CURVES, "figure.png", "figures", "report.html")
LOGS = (LOG, EVENTS, PROFILE)
# The header first, without which the rest means nothing.
STATE = (HEADER, UNFINISHED)
BEGUN = {"commit": "at", "device": "on"}  # What may change in a run, and is told and recorded.
OVER = "choose another --out, or --overwrite."


class UnderWay(NamedTuple):
    """A run that is under way."""

    header: Header  # With where it was begun, if elsewhere.
    kept: Kept
    log: Log | None  # None where this process does not write.


class RunFolder(NamedTuple):
    """A folder, the run that is to be in it, and what may be done there.

    Args:
      path: It need not exist.
      header: The record to come, without results. Its `config`, `versions` and `numerics` are
        compared with those that the folder holds.
      devices: Process 0 looks and writes, and all others go by what it found.
      resume: Continue an unfinished run; a complete one with the same config is left alone.
      overwrite: Start again whatever is there.
      inner: Names of sub-folders that belong to other runs and are not looked at.
      alike: Even with `resume`, a complete run must have the same versions and numerics.
    """

    path: Path
    header: Header
    devices: Devices = ALONE
    resume: bool = False
    overwrite: bool = False
    inner: tuple[str, ...] = ()
    alike: bool = False

    def must_run(self) -> bool:
        """Whether the run has still to be done; False where it is complete.

        That may change as soon as it was found: `under_way` looks again before anything is removed.

        Raises:
          ValueError: where the folder holds anything that this run must not replace.
        """
        todo = bool(self.devices.shared(self._look))
        if not todo and self.devices.writes and (self.path / UNFINISHED).exists():
            with suppress(ValueError), locked(self.path):  # Of a process killed when it was done.
                if not (self.path / HEADER).exists():
                    clear(self.path, STATE)
        return todo

    @contextmanager
    def under_way(
        self, say: Callable[[str], None], save_every: float = SAVE_EVERY
    ) -> Iterator[UnderWay | None]:
        """What is kept of the run outlives the process until the run is complete.

        The folder is this process's alone until the block is left. What `must_run` looks at is
        looked at again, so that nothing is removed but what was seen under the lock: None where
        another process has completed the run since. Leaving the block without an error ends the
        run: what was kept for resuming it is removed. ValueError where another process is at work
        in the folder.

        Args:
          say: Is told, in a line, what was refused or could not be saved; the log is told too.
          save_every: Seconds between checkpoints of a loop.
        """
        with ExitStack() as stack:

            def claim() -> bytes:
                stack.enter_context(locked(self.path))
                return self._look()

            if not self.devices.shared(claim):
                stack.close()
                yield None
                return
            header, log = self.header, None
            if self.devices.writes:
                header = self._begun()
                log = stack.enter_context(logged(self.path, self.header, say))
                for key, value in header.get("begun", {}).items():
                    if value != header.get(key):
                        now = f"and is continued at {header.get(key)}"
                        log.tell(f"This run was begun {BEGUN[key]} {key} {value} {now}.")
            run = [header.get(key) for key in ("config", "versions", "numerics")]
            tell = log.tell if log else say
            kept = Kept(self.path / UNFINISHED, run, tell, save_every, self.devices)
            yield UnderWay(header, kept, log)
            if log:
                clear(self.path, STATE)

    def _look(self):
        """Whether the run has still to be done, as bytes."""
        if self.overwrite or not self.path.is_dir():
            return b"1"
        if (self.path / HEADER).exists():  # Before the record that it may be replacing.
            check_same(self.path, self.header, _read_header(self.path))
            if not self.resume:
                raise ValueError(
                    f"{self.path} holds an unfinished run: --resume continues it, "
                    "--overwrite starts again."
                )
            return b"1"
        if (self.path / RECORD).exists():
            try:
                record = read_record(self.path)[0]
            except ValueError as error:
                raise ValueError(f"{error} --overwrite starts again.") from None
            check_same(self.path, self.header, record, alike=self.alike or not self.resume)
            return b""
        present = {path.name for path in self.path.iterdir()} - {LOCK, UNFINISHED, *self.inner}
        in_the_way = sorted(present & set(PRODUCTS) if self.resume else present)
        if in_the_way:
            raise ValueError(
                f"{self.path} is not empty ({', '.join(in_the_way[:3])}) and holds no run: {OVER}"
            )
        return b"1"

    def _begun(self):
        """The header of a run that is begun or gone on with, once it is on disk."""
        header = self.header
        if self.overwrite or not (self.path / HEADER).exists():
            clear(self.path, (*LOGS, *STATE))
        else:
            header = continued(header, _read_header(self.path))
        (self.path / UNFINISHED).mkdir(parents=True, exist_ok=True)
        lines = json.dumps(header, indent=1)
        write_file(self.path / HEADER, lambda file: file.write(lines.encode()))
        # After the header: whenever the process stops, one of the two is there.
        clear(self.path, PRODUCTS)
        return header


def continued(header: Header, before: Mapping[str, Any]) -> Header:
    """`header`, and where what it goes on with was begun: no reason to refuse, but to record it."""
    begun = before.get("begun") or {key: before.get(key) for key in BEGUN}
    if "begun" in header or all(begun.get(key) == header.get(key) for key in BEGUN):
        return header
    return header | {"begun": begun}


def discard(folders: Iterable[Path]) -> None:
    """Remove the runs in all `folders`, or in none where another process is at work in one."""
    folders = list(folders)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder))
        for folder in folders:
            clear(folder, PRODUCTS)
        for folder in folders:
            clear(folder, (*STATE, *LOGS))


def clear(folder: Path, names: Iterable[str]) -> None:
    """Remove what a run leaves in `folder` under these names, and nothing else."""
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        for litter in folder.glob(f".{name}.*"):  # Of a process that was killed while writing.
            litter.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, which is made, for this process alone.

    Raises:
      ValueError: it is another process's, or cannot be written.
    """
    path, flags = (
        folder / LOCK,
        os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
    )
    while True:  # Until what is locked is what the next process finds.
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, flags, 0o666)
        except OSError as error:
            said = error.strerror or error
            raise ValueError(f"{folder} cannot be written: {LOCK}: {said}.") from None
        with os.fdopen(handle, "rb", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Freed with the process.
                # Whoever had it may have removed it since.
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    continue
            except BlockingIOError:
                raise ValueError(f"another process is running in {folder}.") from None
            except FileNotFoundError:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def normalised(config: Any) -> Any:
    """`config` as it comes back from JSON, so that the two compare equal."""
    return json.loads(json.dumps(config, allow_nan=False))


def check_same(
    folder: Path, header: Header, found: Mapping[str, Any], *, alike: bool = True
) -> None:
    """Raise ValueError, in a line, unless what `folder` holds is of the run of `header`.

    Args:
      folder: Named in the line.
      header: Of the run that is asked for.
      found: The header or record in the folder.
      alike: Compare versions and numerics too. Older versions recorded no numerics: of theirs, the
        pieces are done again.
    """
    for key in ("experiment", "preset"):
        if found.get(key) != header[key]:
            raise ValueError(
                f"{folder} holds {key} {found.get(key)!r}, not {header[key]!r}: {OVER}"
            )
    for key in ("config", "versions", "numerics") if alike else ("config",):
        change = first_change(found.get(key), header.get(key))
        if change:
            other = "other flags or devices" if key == "numerics" else f"another {key}"
            raise ValueError(f"{folder} holds a run with {other} ({change}): {OVER}")


def first_change(found: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> str:
    """The first name whose values differ, and both; empty where there is none to compare."""
    if found is None or asked is None:
        return ""
    for name in sorted({*found, *asked}):
        if found.get(name) != asked.get(name):
            return f"{name} is {found.get(name)!r} there and {asked.get(name)!r} here"
    return ""


def _read_header(folder):
    path = folder / HEADER
    try:
        header = json.loads(text(path))
        header["experiment"], dict(header["config"]), dict(header["versions"])
        dict(header.get("numerics", {})), dict(header.get("begun", {}))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); --overwrite starts again.") from None
    return header
