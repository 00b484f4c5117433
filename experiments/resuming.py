# SPDX-License-Identifier: Apache-2.0
"""What survives an interruption: pieces that are finished, and checkpoints inside long loops.

In ``unfinished/`` a piece is one file ``NAME.npz``, whose format holds a sum of every array, and a
loop is a folder ``NAME.steps`` of orbax's, which goes when the piece around it is finished. Each
carries a mark of its name and of the run's config, versions and numerics, so that nothing of
another run is ever used.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import numpy as np

from experiments import interruption
from experiments.sharding import ALONE, Devices, on_host
from plprune.data.files import LARGEST, content
from plprune.records import read_arrays, write_arrays

Arrays = dict[str, np.ndarray]
Tell = Callable[[str], None]
SAVE_EVERY = 60.0  # Seconds between checkpoints.


class Here(NamedTuple):
    """How far a loop has come."""

    done: int  # Steps.
    state: Any
    infos: Arrays  # Of any length, such as curves so far.


@dataclass
class Kept:
    """Everything of a run that outlives its process; nothing where there is no folder."""

    folder: Path | None = None  # Exists where this process writes.
    run: Any = None  # By what two runs are the same, as JSON holds it.
    tell: Tell = print  # Is told, in a line, what was refused or could not be saved.
    save_every: float = SAVE_EVERY
    devices: Devices = ALONE
    _loops: set[str] = field(default_factory=set)
    _in_piece: list[Path] = field(default_factory=list)

    def once(self, name: str, work: Callable[[], Mapping]) -> Arrays:
        """The arrays of ``work()``, or those that an interrupted run of it left behind."""
        interruption.check()
        if self.folder is None:
            return as_arrays(work())
        path = self.folder / f"{quote(name, safe=' ,=@')}.npz"
        found = self.devices.shared(lambda: self._piece(path, name))
        if found:
            return _values(unpacked(found))
        self._in_piece = []
        arrays = as_arrays(work())
        if self.devices.writes:
            named = {f"value/{key}": array for key, array in arrays.items()}
            write_arrays(path, named | {"mark": np.array(self._mark(name))})
            for folder in self._in_piece:
                shutil.rmtree(folder, ignore_errors=True)
        return arrays

    def loop(self, name: str) -> "Loop":
        """The checkpoints of a loop that the caller runs; its name is its own within the run."""
        if name in self._loops:
            raise ValueError(f"two loops are named {name!r}; a name is a loop's own.")
        self._loops.add(name)
        if self.folder is None:
            return Loop(name)
        folder = self.folder / f"{quote(name, safe=' ,=@')}.steps"
        self._in_piece.append(folder)
        return Loop(name, folder, self._mark(name), self)

    def _mark(self, name):
        return hashlib.sha256(json.dumps([name, self.run], sort_keys=True).encode()).hexdigest()

    def _piece(self, path, name):
        """The content of a finished piece, whole; empty where there is none."""
        if not path.exists():
            return b""
        try:
            if str(read_arrays(path).get("mark")) != self._mark(name):
                raise ValueError(f"{path} belongs to another run")
            return content(path)
        except (ValueError, OSError) as error:
            self.tell(f"{name} is done again: {error}")
            return b""


class Loop:
    """The checkpoints of one loop; a context manager around it.

    What was offered last is saved when the block is interrupted. What cannot be saved is told and
    the loop goes on: earlier checkpoints are still there.
    """

    def __init__(self, name: str, folder: Path | None = None, mark: str = "", kept: Any = None):
        self.name, self.folder, self.mark, self.kept = name, folder, mark, kept
        self._here: Here | None = None
        self._manager: Any = None
        self._last = time.monotonic()

    def latest(self, state: Any) -> Here | None:
        """Where an interrupted run of the loop stood; None where it must begin.

        Args:
          state: The first state, for structure, shapes, types and devices.
        """
        if self.folder is None:
            return None
        found = self.kept.devices.shared(lambda: self._newest(state))
        self._last = time.monotonic()
        return _as_here(unpacked(found), state) if found else None

    def offer(self, done: int, state: Any, infos: Mapping | None = None) -> None:
        """Save, in the background and where it is time to, what the loop needs to go on from here.

        Args:
          done: Steps so far, more than at the last offer.
          state: A tree like the first.
          infos: Arrays of any length by name, such as curves so far.
        """
        interruption.check()
        self._here = Here(done, state, as_arrays(infos or {}))
        if self.folder is not None and self.kept.devices.shared(self._is_due):
            self._save(self._here)

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._here is not None:
            self._save(self._here)
        manager, self._manager = self._manager, None
        if manager is not None:
            self._told(manager.close)

    def _is_due(self):
        return b"1" if time.monotonic() - self._last >= self.kept.save_every else b""

    def _save(self, here):
        if self.folder is None:
            return
        from experiments.checkpoints import Checkpoints  # Here: importing orbax takes a second.

        content = packed(_arrays_of(here))  # In every process: what is spread is gathered.
        self._last = time.monotonic()
        if self.kept.devices.writes:
            self._manager = self._manager or Checkpoints(self.folder, self.mark)
            self._told(lambda: self._manager.save(here.done, content))

    def _newest(self, state):
        """The newest checkpoint that is whole, the loop's own and like `state`, as bytes."""
        if not self.folder.exists():
            return b""
        from experiments.checkpoints import Checkpoints

        self._manager = Checkpoints(self.folder, self.mark)
        for step in self._manager.steps():
            try:
                content = self._manager.read(step)
                _as_here(unpacked(content), state)
            except ValueError as error:
                self.kept.tell(f"a checkpoint of {self.name} is refused: {error}")
            else:
                return content
        return b""

    def _told(self, work):
        try:
            work()
        except Exception as error:  # Of a full disk there are many, by layer.
            said = " ".join(str(error).split())[:200] or type(error).__name__
            self.kept.tell(f"a checkpoint of {self.name} could not be saved: {said}")


def as_arrays(values: Mapping) -> Arrays:
    """Each value as an array; None is NaN. ValueError for anything that is not numbers."""
    arrays = {key: np.asarray(np.nan if v is None else v) for key, v in values.items()}
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{key!r} must be numbers, got {array.dtype}.")
    return arrays


def packed(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an archive."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpacked(found: bytes) -> Arrays:
    """The arrays of `packed`, whose format holds a sum of each; ValueError where one is damaged."""
    try:
        with np.load(io.BytesIO(found), allow_pickle=False) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > LARGEST:
                raise ValueError(f"it must hold at most {LARGEST:,} bytes")
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # Damage may surface anywhere in zipfile, zlib and NumPy.
        raise ValueError(f"it is damaged: {error}") from None


def _values(arrays):
    return {k.removeprefix("value/"): v for k, v in arrays.items() if k.startswith("value/")}


def _arrays_of(here: Here) -> Arrays:
    """All of a loop's state as arrays on the host, its leaves in the order of the tree."""
    leaves = on_host([_data(leaf) for leaf in jax.tree.leaves(here.state)])
    infos = {f"info/{name}": array for name, array in here.infos.items()}
    states = {f"state/{i}": leaf for i, leaf in enumerate(leaves)}
    return {"done": np.asarray(here.done)} | states | infos


def _as_here(arrays: Arrays, like: Any) -> Here:
    """The loop that `_arrays_of` took apart, with leaves of the kinds and on the devices of `like`.

    Raises:
      ValueError: a leaf of another shape or type.
    """
    wanted, structure = jax.tree.flatten(like)
    if sum(key.startswith("state/") for key in arrays) != len(wanted):
        raise ValueError(f"its state must have {len(wanted)} leaves.")
    leaves = [_like(arrays[f"state/{i}"], leaf, i) for i, leaf in enumerate(wanted)]
    infos = {k.removeprefix("info/"): v for k, v in arrays.items() if k.startswith("info/")}
    return Here(int(arrays["done"]), jax.tree.unflatten(structure, leaves), infos)


def _like(array, leaf, place):
    data = _data(leaf)
    array = array.view(data.dtype) if array.dtype.kind == "V" else array  # NumPy lacks bfloat16.
    if (array.shape, array.dtype) != (data.shape, data.dtype):
        raise ValueError(
            f"leaf {place} of its state must be {data.dtype}{list(data.shape)}, "
            f"got {array.dtype}{list(array.shape)}."
        )
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(leaf))
    if not isinstance(leaf, jax.Array):
        return array
    if len(leaf.sharding.device_set) == 1:
        return jax.numpy.asarray(array)
    return jax.make_array_from_callback(array.shape, leaf.sharding, lambda where: array[where])


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
