# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what may be written there, and what an interrupted run left behind.

While a run is under way its folder has ``unfinished/``: the header of the record to come in
``run.json``, and what `experiments.resuming` keeps. It goes when the record is complete.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from experiments.resuming import SAVE_EVERY, Kept, Tell
from experiments.run_log import EVENTS, LOG, PROFILE
from experiments.sharding import ALONE, Devices
from plprune.data.files import text
from plprune.records import CURVES, RECORD, read_record, write_file

Header = dict[str, Any]  # A record without its results.
UNFINISHED = "unfinished"
HEADER = "run.json"
LOCK = ".lock"
PRODUCTS = (RECORD, CURVES, "figure.png", "figure.pdf", "report.html")
BEGUN = {"commit": "at", "device": "on"}  # What may change in a run, and is told and recorded.


class Run(NamedTuple):
    """A run that is under way."""

    header: Header  # With where it was begun, if elsewhere.
    kept: Kept


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
        return bool(self.devices.shared(self._look))

    def _look(self):
        todo = self._is_to_run()
        unfinished = self.path / UNFINISHED
        if not todo and unfinished.exists():  # Of a process killed when it was complete.
            with suppress(ValueError), locked(self.path):
                if not (unfinished / HEADER).exists():
                    forget(self.path)
        return b"1" if todo else b""

    def _is_to_run(self):
        _check_writable(self.path)
        if self.overwrite:
            return True
        if (self.path / UNFINISHED / HEADER).exists():  # Before the record that it may replace.
            check_same(self.path, self.header, _read_header(self.path))
            if not self.resume:
                raise ValueError(
                    f"{self.path} holds an unfinished run: --resume continues it, "
                    "--overwrite starts again."
                )
            return True
        if (self.path / RECORD).exists():
            alike = self.alike or not self.resume
            check_same(self.path, self.header, _complete_record(self.path), alike=alike)
            return False
        present = {path.name for path in self.path.iterdir()} - {LOCK, UNFINISHED, *self.inner}
        in_the_way = present & set(PRODUCTS) if self.resume else present
        if in_the_way:
            raise ValueError(
                f"{self.path} is not empty ({', '.join(sorted(in_the_way)[:3])}) and holds no run: "
                "choose another --out, or --overwrite."
            )
        return True

    @contextmanager
    def under_way(self, tell: Tell, save_every: float = SAVE_EVERY) -> Iterator[Run | None]:
        """What is kept of the run outlives the process until the run is complete.

        The folder is this process's alone until the block is left. What `must_run` looks at is
        looked at again, so that nothing is removed but what was seen under the lock: None where
        another process has completed the run since. Leaving the block without an error ends the
        run: what was kept for resuming it is removed. ValueError where another process is at work
        in the folder.
        """
        with ExitStack() as stack:

            def claim() -> bytes:
                stack.enter_context(locked(self.path))
                return b"1" if self._is_to_run() else b""

            if not self.devices.shared(claim):
                stack.close()
                yield None
                return
            header = self._begun(tell) if self.devices.writes else self.header
            state = self.path / UNFINISHED
            yield Run(header, Kept(state, _identity(header), tell, save_every, self.devices))
            if self.devices.writes:
                forget(self.path)

    def _begun(self, tell):
        """The header of a run that is begun or gone on with, once it is on disk."""
        folder, state, header = self.path, self.path / UNFINISHED, self.header
        if self.overwrite or not (state / HEADER).exists():
            _clear_logs(folder)
            forget(folder)
        else:
            header = continued(header, _read_header(folder))
            for key, value in header.get("begun", {}).items():
                if value != header.get(key):
                    at = f"{BEGUN[key]} {key}"
                    tell(f"This run was begun {at} {value} and is continued at {header.get(key)}.")
        state.mkdir(parents=True, exist_ok=True)
        lines = json.dumps(header, indent=1)
        write_file(state / HEADER, lambda file: file.write(lines.encode()))
        clear(folder)  # After the header: whenever the process stops, one of the two is there.
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
            clear(folder)
        for folder in folders:
            forget(folder)
            _clear_logs(folder)


def forget(folder: Path) -> None:
    """Remove what was kept for resuming: the header first, without which the rest means nothing."""
    (folder / UNFINISHED / HEADER).unlink(missing_ok=True)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what a complete run leaves in `folder`, and nothing else."""
    for name in PRODUCTS:
        (folder / name).unlink(missing_ok=True)
        for litter in folder.glob(f".{name}.*"):  # Of a process that was killed while writing.
            litter.unlink(missing_ok=True)


def _clear_logs(folder):
    """Remove what another run in `folder` told; a resumed one goes on telling."""
    (folder / LOG).unlink(missing_ok=True)
    for name in (EVENTS, PROFILE):
        shutil.rmtree(folder / name, ignore_errors=True)


def normalised(config: Any) -> Any:
    """`config` as it comes back from JSON, so that the two compare equal."""
    return json.loads(json.dumps(config, allow_nan=False))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, which is made, for this process alone; ValueError where it is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with _lock(path):  # The system frees it with the process.
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "rb", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it has removed it since, or it is what the next process finds too.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BlockingIOError:
            file.close()
            raise ValueError(f"another process is running in {path.parent}.") from None
        except FileNotFoundError:
            pass
        file.close()


def _check_writable(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror or error}.") from None


def _complete_record(folder):
    try:
        return read_record(folder)[0]
    except ValueError as error:
        raise ValueError(f"{error} --overwrite starts again.") from None


def _read_header(folder):
    path = folder / UNFINISHED / HEADER
    try:
        header = json.loads(text(path))
        header["experiment"], dict(header["config"]), dict(header["versions"])
        dict(header.get("numerics", {})), dict(header.get("begun", {}))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); --overwrite starts again.") from None
    return header


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
                f"{folder} holds {key} {found.get(key)!r}, not {header[key]!r}: "
                "choose another --out, or --overwrite."
            )
    for key in ("config", "versions", "numerics") if alike else ("config",):
        change = first_change(found.get(key), header.get(key))
        if change:
            other = "other flags or devices" if key == "numerics" else f"another {key}"
            raise ValueError(
                f"{folder} holds a run with {other} ({change}): "
                "choose another --out, or --overwrite."
            )


def _identity(header):
    """What pieces of one run have in common and those of others have not."""
    return [header.get(key) for key in ("config", "versions", "numerics")]


def first_change(found: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> str:
    """The first name whose values differ, and both; empty where there is none to compare."""
    if found is None or asked is None:
        return ""
    for name in sorted({*found, *asked}):
        if found.get(name) != asked.get(name):
            return f"{name} is {found.get(name)!r} there and {asked.get(name)!r} here"
    return ""
