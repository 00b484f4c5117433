"""The folder of a run: what may be written there, and what an interrupted run left behind.

While a run is under way its folder has ``unfinished/``: the header of the record to come in
``run.json`` and one file per finished piece of work. It goes when the record is complete.
"""

import fcntl
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.progress import Arrays, Once, as_arrays
from plprune.records import CURVES, RECORD, read_record, write_file

Header = dict[str, Any]  # A record without its results.
UNFINISHED = "unfinished"
HEADER = "run.json"
LOCK = ".lock"
PRODUCTS = (RECORD, CURVES, "figure.png", "figure.pdf", "report.html")


def must_run(
    folder: Path, header: Header, *, resume: bool, overwrite: bool, inner: Iterable[str] = ()
) -> bool:
    """Whether the run of `header` has still to be done in `folder`; False where it is complete.

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
    folder: Path, header: Header, *, overwrite: bool, tell: Callable[[str], None]
) -> Iterator[Once]:
    """The `once` of a run in `folder`, whose pieces outlive the process until the run is complete.

    Leaving the block without an error ends the run: what was kept for resuming it is removed.
    ValueError where another process is at work in the folder.
    """
    state = folder / UNFINISHED
    with _locked(folder):
        if overwrite:
            forget(folder)
        elif (state / HEADER).exists():
            _tell_commit(_read_header(folder).get("commit"), header.get("commit"), tell)
        state.mkdir(parents=True, exist_ok=True)
        text = json.dumps(header, indent=1)
        write_file(state / HEADER, lambda file: file.write(text.encode()))
        clear(folder)  # After the header: whenever the process stops, one of the two is there.
        identity = json.dumps([header["config"], header["versions"]], sort_keys=True)
        yield lambda name, work: _once(state, identity + name, name, work, tell)
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


def normalised(config: Any) -> Any:
    """`config` as it comes back from JSON, so that the two compare equal."""
    return json.loads(json.dumps(config, allow_nan=False))


def _once(state, identity, name, work, tell) -> Arrays:
    # Named after config and versions too: a piece of another run is never found.
    path = state / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.part"
    if path.exists():
        try:
            return _read_part(path)
        except (ValueError, OSError, KeyError, EOFError) as error:
            tell(f"{path} ({name}) is damaged and is done again: {error}")
    arrays = as_arrays(work())
    _write_part(path, arrays)
    return arrays


def _write_part(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An ``.npz`` archive behind its own SHA-256, so that no damage goes unseen."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{f"value {key}": a for key, a in arrays.items()})
    digest = hashlib.sha256(buffer.getvalue()).digest()
    write_file(path, lambda file: file.write(digest + buffer.getvalue()))


def _read_part(path):
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(content[32:]), allow_pickle=False) as archive:
        return {key.removeprefix("value "): archive[key] for key in archive.files}


@contextmanager
def _locked(folder):
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
