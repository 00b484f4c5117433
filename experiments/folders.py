# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what may be written there, and what an interrupted run left behind.

While a run is under way its folder has ``unfinished/``: the header of the record to come in
``run.json`` and one file per finished piece of work. It goes when the record is complete.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from experiments import devices
from experiments.keeping import SAVE_EVERY, OnDisk, identity_of
from plprune.data.files import text
from plprune.records import CURVES, RECORD, read_record, write_file

Header = dict[str, Any]  # A record without its results.
UNFINISHED = "unfinished"
HEADER = "run.json"
LOCK = ".lock"
LOG, EVENTS, PROFILE = LOGS = "log.jsonl", "tensorboard", "profile"
PRODUCTS = (RECORD, CURVES, "figure.png", "figure.pdf", "report.html")
BEGUN = {"commit": "at", "device": "on"}  # What may change in a run, and is told and recorded.


def must_run(
    folder: Path,
    header: Header,
    *,
    resume: bool,
    overwrite: bool,
    inner: Iterable[str] = (),
    alike: bool = False,
) -> bool:
    """Whether the run of `header` has still to be done in `folder`; False where it is complete.

    Process 0 looks, and all others go by what it found. That may change as soon as it was found:
    `under_way` looks again before anything is removed.

    Args:
      folder: Of the run; it need not exist.
      header: The record to come, without results. Its `config`, `versions` and `numerics` are
        compared with those that the folder holds.
      resume: Continue an unfinished run; a complete one with the same config is left alone.
      overwrite: Start again whatever is there.
      inner: Names of sub-folders that belong to other runs and are not looked at.
      alike: Even with `resume`, a complete run must have the same versions and numerics.

    Raises:
      ValueError: where the folder holds anything that this run must not replace.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other.")

    def look() -> bytes:
        todo = _still_to_run(folder, header, resume, overwrite, inner, alike)
        if not todo and (folder / UNFINISHED).exists():  # Of a process killed when it was complete.
            with suppress(ValueError), locked(folder):
                if not (folder / UNFINISHED / HEADER).exists():
                    forget(folder)
        return b"1" if todo else b""

    return bool(devices.shared(look))


def _still_to_run(folder, header, resume, overwrite, inner, alike):
    _check_writable(folder)
    if overwrite:
        return True
    if (folder / UNFINISHED / HEADER).exists():  # Before the record, which it may be replacing.
        check_same(folder, header, _read_header(folder))
        if not resume:
            raise ValueError(
                f"{folder} holds an unfinished run: --resume continues it, "
                "--overwrite starts again."
            )
        return True
    if (folder / RECORD).exists():
        check_same(folder, header, _complete_record(folder), alike=alike or not resume)
        return False
    present = {path.name for path in folder.iterdir()} - {LOCK, UNFINISHED, *inner}
    in_the_way = present & set(PRODUCTS) if resume else present
    if in_the_way:
        raise ValueError(
            f"{folder} is not empty ({', '.join(sorted(in_the_way)[:3])}) and holds no run: "
            "choose another --out, or --overwrite."
        )
    return True


@contextmanager
def under_way(
    folder: Path,
    header: Header,
    *,
    overwrite: bool,
    tell: Callable[[str], None],
    save_every: float = SAVE_EVERY,
    resume: bool = True,
    inner: Iterable[str] = (),
    alike: bool = False,
) -> Iterator[OnDisk | None]:
    """What is kept of a run in `folder` outlives the process until the run is complete.

    The folder is this process's alone until the block is left. What `must_run` looks at is looked
    at again, so that nothing is removed but what was seen under the lock: None where another
    process has completed the run since. Leaving the block without an error ends the run: what was
    kept for resuming it is removed. ValueError where another process is at work in the folder.
    """
    with ExitStack() as stack:

        def claim() -> bytes:
            stack.enter_context(locked(folder))
            return b"1" if _still_to_run(folder, header, resume, overwrite, inner, alike) else b""

        if not devices.shared(claim):
            stack.close()
            yield None
            return
        kept = OnDisk(folder / UNFINISHED, identity_of(header), tell, save_every)
        kept.header = _begun(folder, header, overwrite, tell) if devices.writes() else header
        yield kept
        if devices.writes():
            forget(folder)


def _begun(folder, header, overwrite, tell):
    """The header of a run that is begun or gone on with, once it is on disk."""
    state = folder / UNFINISHED
    if overwrite or not (state / HEADER).exists():
        _clear_logs(folder)
    if overwrite:
        forget(folder)
    elif (state / HEADER).exists():
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


def first_change(found: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> str:
    """The first name whose values differ, and both; empty where there is none to compare."""
    if found is None or asked is None:
        return ""
    for name in sorted({*found, *asked}):
        if found.get(name) != asked.get(name):
            return f"{name} is {found.get(name)!r} there and {asked.get(name)!r} here"
    return ""
