# SPDX-License-Identifier: Apache-2.0
"""What survives an interruption: pieces that are finished, and checkpoints inside long loops.

In ``unfinished/`` a piece is one file ``HASH.part``, and the checkpoints of a loop are the folder
``HASH.steps``, which goes when the piece around it is finished. The hash is of config, versions and
name, so that nothing of another run is ever found.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import devices, interruption
from experiments.carrying import Advance, Here, Infos, Store, carried
from plprune.data.files import content
from plprune.records import write_file

Arrays = dict[str, np.ndarray]
Tell = Callable[[str], None]
SAVE_EVERY = 60.0  # Seconds between checkpoints.
MAX_TO_KEEP = 3


def as_arrays(values: Mapping) -> Arrays:
    """Each value as an array; None is NaN. ValueError for anything that is not numbers."""
    arrays = {key: np.asarray(np.nan if v is None else v) for key, v in values.items()}
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{key!r} must be numbers, got {array.dtype}.")
    return arrays


class InMemory:
    """Keeps nothing: the tests, and whoever calls an experiment's `run`."""

    def once(self, name: str, work: Callable[[], Mapping]) -> Arrays:
        """What `work` returns, as arrays."""
        del name
        return as_arrays(work())

    def carry(
        self, name: str, state: Any, inputs: Any, advance: Advance, **options: Any
    ) -> tuple[Any, Infos]:
        """The loop from its start."""
        return carried(name, state, inputs, advance, _Nowhere(), **options)

    def loop(self, name: str) -> "Loop":
        """A loop that is never resumed."""
        del name
        return Loop(_Nowhere())


class OnDisk:
    """Keeps everything in the folder `state` of a run.

    Args:
      state: The folder, which exists where this process writes.
      identity: Of the run; pieces and checkpoints of another are not found.
      tell: Is told, in a line, what was refused or could not be saved.
      save_every: Seconds between checkpoints of a loop.
    """

    def __init__(self, state: Path, identity: str, tell: Tell, save_every: float = SAVE_EVERY):
        self.state, self.identity, self.tell, self.save_every = state, identity, tell, save_every
        self.header: dict[str, Any] = {}  # The record to come, where it is known.
        self._loops: dict[str, Path] = {}
        self._in_piece: list[Path] = []

    def once(self, name: str, work: Callable[[], Mapping]) -> Arrays:
        """The arrays of `work`, or those that an interrupted run of it left behind."""
        interruption.check()
        path = self._path(name).with_suffix(".part")
        found = devices.shared(lambda: self._part(path, name))
        if found:
            return _arrays_of(found)
        self._in_piece = []
        arrays = as_arrays(work())
        if devices.writes():
            _write_part(path, arrays)
            for folder in self._in_piece:
                shutil.rmtree(folder, ignore_errors=True)
        return arrays

    def carry(
        self, name: str, state: Any, inputs: Any, advance: Advance, **options: Any
    ) -> tuple[Any, Infos]:
        """The loop from its last checkpoint."""
        store = self._store(name)
        try:
            return carried(name, state, inputs, advance, store, **options)
        finally:
            store.finish()

    def loop(self, name: str) -> "Loop":
        """The checkpoints of a loop that the caller runs."""
        return Loop(self._store(name))

    def _store(self, name):
        if name in self._loops:
            raise ValueError(f"two loops are named {name!r}; a name is a loop's own.")
        folder = self._loops[name] = self._path(name).with_suffix(".steps")
        self._in_piece.append(folder)
        return _Folder(folder, {"run": folder.stem, "name": name}, self.tell, self.save_every)

    def _path(self, name):
        return self.state / hashlib.sha256((self.identity + name).encode()).hexdigest()[:32]

    def _part(self, path, name):
        """The content of a finished piece, whole; empty where there is none."""
        try:
            found = content(path)
            _arrays_of(found)
        except FileNotFoundError:
            return b""
        except (ValueError, OSError, KeyError, EOFError) as error:
            self.tell(f"{path} ({name}) is damaged and is done again: {error}")
            return b""
        return found


class Loop:
    """The checkpoints of a loop that the caller runs; a context manager around it.

    What was offered last is saved when the block is interrupted.
    """

    def __init__(self, store: Store):
        self._store = store
        self._here: Here | None = None

    def latest(self, state: Any) -> Here | None:
        """Where an interrupted run of the loop stood; None where it must begin.

        Args:
          state: The first state, for structure, shapes and types.
        """
        return self._store.latest(state)

    def offer(self, done: int, state: Any, infos: Mapping | None = None) -> None:
        """Save, in the background and where it is time to, what the loop needs to go on from here.

        Args:
          done: Steps so far, more than at the last offer.
          state: A tree like the first.
          infos: Arrays of any length by name, such as curves so far.
        """
        self._here = Here(done, state, as_arrays(infos or {}), False)
        if self._store.due():
            self._store.save(self._here)

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._here is not None:
            self._store.save(self._here)
        self._store.finish()


class _Nowhere:
    """The store that keeps nothing."""

    def latest(self, state):
        del state

    def due(self):
        return False

    def save(self, here):
        del here

    def place(self):
        return ""

    def finish(self):
        pass


class _Folder:
    """Checkpoints in one folder, saved in the background at most every so many seconds.

    What cannot be saved is told and the loop goes on: earlier checkpoints are still there.
    """

    def __init__(self, folder, metadata, tell, save_every):
        self.folder, self.metadata, self.tell = folder, metadata, tell
        self.save_every, self.saver, self.last = save_every, None, time.monotonic()

    def latest(self, state):
        if not devices.shared(lambda: b"1" if self.folder.exists() else b""):
            return None
        from experiments.checkpoints import newest  # Here: importing orbax takes a second.

        found = newest(self.folder, state, self.metadata, self._tell)
        self.last = time.monotonic()
        return found

    def due(self):
        def late():
            return b"1" if time.monotonic() - self.last >= self.save_every else b""

        return bool(devices.shared(late))

    def save(self, here):
        from experiments.checkpoints import contents
        from plprune.storage import Saver

        tree = contents(here)  # In every process: what is spread is gathered.
        self.last = time.monotonic()
        if not devices.writes():
            return
        self.saver = self.saver or Saver(self.folder, max_to_keep=MAX_TO_KEEP)
        described = {key: [list(v.shape), str(v.dtype)] for key, v in here.infos.items()}
        metadata = self.metadata | {"infos": described, "over": here.over}
        self._told(lambda: self.saver.save(here.done, tree, metadata=metadata))

    def place(self):
        if self.saver is None and not self.folder.exists():
            return ""
        from plprune.storage import steps

        self.finish()
        found = steps(self.folder)
        return str(self.folder / f"step_{found[-1]:010d}") if found else ""

    def finish(self):
        saver, self.saver = self.saver, None
        if saver is not None:
            self._told(saver.close)

    def _told(self, work):
        try:
            work()
        except Exception as error:  # Of a full disk there are many, by layer.
            said = " ".join(str(error).split())[:200] or type(error).__name__
            self.tell(f"a checkpoint of {self.metadata['name']} could not be saved: {said}")

    def _tell(self, text):
        self.tell(f"a checkpoint of {self.metadata['name']} is refused: {text}")


def _write_part(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An ``.npz`` archive behind its own SHA-256, so that no damage goes unseen."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{f"value {key}": a for key, a in arrays.items()})
    digest = hashlib.sha256(buffer.getvalue()).digest()
    write_file(path, lambda file: file.write(digest + buffer.getvalue()))


def _arrays_of(found):
    if hashlib.sha256(found[32:]).digest() != found[:32]:
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(found[32:]), allow_pickle=False) as archive:
        return {key.removeprefix("value "): archive[key] for key in archive.files}


def identity_of(header: Mapping[str, Any]) -> str:
    """What pieces of one run have in common and those of others have not."""
    keys = ("config", "versions", "numerics")
    return json.dumps([header.get(key) for key in keys], sort_keys=True)
