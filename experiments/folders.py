# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what may be written there, and what an interrupted run left behind.

While a run is under way its folder has ``unfinished/``: the header of the record to come in
``run.json`` and one file per finished piece of work. It goes when the record is complete.
"""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments import devices
from experiments.keeping import SAVE_EVERY, OnDisk, identity_of
from plprune.records import CURVES, RECORD, read_record, write_file

Header = dict[str, Any]  # A record without its results.
UNFINISHED = "unfinished"
HEADER = "run.json"
LOCK = ".lock"
LOG, EVENTS, PROFILE = LOGS = "log.jsonl", "tensorboard", "profile"
PRODUCTS = (RECORD, CURVES, "figure.png", "figure.pdf", "report.html")


def must_run(
    folder: Path, header: Header, *, resume: bool, overwrite: bool, inner: Iterable[str] = ()
) -> bool:
    """Whether the run of `header` has still to be done in `folder`; False where it is complete.

    Process 0 looks, and all others go by what it found.

    Args:
      folder: Of the run; it need not exist.
      header: The record to come, without results. Its `config` and `versions` are compared.
      resume: Continue an unfinished run; a complete one with the same config is left alone.
      overwrite: Start again whatever is there.
      inner: Names of sub-folders that belong to other runs and are not looked at.

    Raises:
      ValueError: where the folder holds anything that this run must not replace.
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite exclude each other.")

    def look() -> bytes:
        return b"1" if _still_to_run(folder, header, resume, overwrite, inner) else b""

    return bool(devices.shared(look))


def _still_to_run(folder, header, resume, overwrite, inner):
    _check_writable(folder)
    if overwrite:
        return True
    if (folder / UNFINISHED / HEADER).exists():  # Before the record, which it may be replacing.
        _check_same(folder, header, _read_header(folder), versions=True)
        if not resume:
            raise ValueError(
                f"{folder} holds an unfinished run: --resume continues it, "
                "--overwrite starts again."
            )
        return True
    if (folder / RECORD).exists():
        _check_same(folder, header, _complete_record(folder), versions=not resume)
        if (folder / UNFINISHED).exists():  # Of a process killed when the record was complete.
            with suppress(ValueError), locked(folder):
                forget(folder)
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
) -> Iterator[OnDisk]:
    """What is kept of a run in `folder` outlives the process until the run is complete.

    Leaving the block without an error ends the run: what was kept for resuming it is removed.
    ValueError where another process is at work in the folder.
    """
    state = folder / UNFINISHED
    kept = OnDisk(state, identity_of(header), tell, save_every)
    if not devices.writes():
        yield kept
        return
    with locked(folder):
        if overwrite or not (state / HEADER).exists():
            _clear_logs(folder)
        if overwrite:
            forget(folder)
        elif (state / HEADER).exists():
            _tell_commit(_read_header(folder).get("commit"), header.get("commit"), tell)
        state.mkdir(parents=True, exist_ok=True)
        text = json.dumps(header, indent=1)
        write_file(state / HEADER, lambda file: file.write(text.encode()))
        clear(folder)  # After the header: whenever the process stops, one of the two is there.
        yield kept
        forget(folder)


def forget(folder: Path) -> None:
    """Remove what was kept for resuming: the header first, without which the rest means nothing."""
    (folder / UNFINISHED / HEADER).unlink(missing_ok=True)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what a complete run leaves in `folder`, and nothing else."""
    for name in PRODUCTS:
        (folder / name).unlink(missing_ok=True)
        for litter in folder.glob(f".{name}.*"):  # Of a process that was killed while writing.
            litter.unlink()


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
    with path.open("w") as lock:
        try:
            fcntl.flock(
                lock, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # The system frees it with the process.
        except BlockingIOError:
            raise ValueError(f"another process is running in {folder}.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _tell_commit(begun, now, tell):
    if begun != now:  # No reason to throw days of work away, but to say so.
        tell(f"This run was begun at commit {begun} and is continued at {now}.")


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
        header = json.loads(path.read_text(encoding="utf-8"))
        header["experiment"], header["config"], header["versions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); --overwrite starts again.") from None
    return header


def _check_same(folder, header, found, *, versions):
    for key in ("experiment", "preset"):
        if found.get(key) != header[key]:
            raise ValueError(
                f"{folder} holds {key} {found.get(key)!r}, not {header[key]!r}: "
                "choose another --out, or --overwrite."
            )
    for key in ("config", "versions") if versions else ("config",):
        change = _first_change(found[key], header[key])
        if change:
            raise ValueError(
                f"{folder} holds a run with another {key} ({change}): "
                "choose another --out, or --overwrite."
            )


def _first_change(found, asked):
    for name in sorted({*found, *asked}):
        if found.get(name) != asked.get(name):
            return f"{name} is {found.get(name)!r} there and {asked.get(name)!r} here"
    return ""
