# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: the newest few, each whole or refused."""

import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from plprune.extras import optional
from plprune.storage.places import restored
from plprune.storage.trees import read_manifest, read_tree, write_tree


class Checkpoint(NamedTuple):
    """What a run needs to continue."""

    step: int
    tree: PyTree
    metadata: Mapping[str, Any]
    refused: tuple[str, ...]  # Why newer checkpoints were passed over.


def save_checkpoint(
    folder: str | Path,
    step: int,
    tree: PyTree,
    *,
    metadata: Mapping[str, Any] | None = None,
    max_to_keep: int = 3,
) -> None:
    """Write a checkpoint of any tree of arrays, such as a TrainState, as `folder/step_N`.

    A checkpoint of the same step is replaced; what an interrupted save left behind is removed.
    One process writes to a folder at a time.

    Args:
      folder: Where the run's checkpoints are.
      step: Number of steps done, at least 0.
      tree: Arrays and random keys in any structure.
      metadata: Anything that JSON can hold.
      max_to_keep: How many of the newest checkpoints stay, at least 1.

    Raises:
      ValueError: If a number is outside its range, or two leaves have one name.
      MissingExtraError: If the extra "storage" is not installed.
    """
    if step < 0 or max_to_keep < 1:
        name, value, least = ("step", step, 0) if step < 0 else ("max_to_keep", max_to_keep, 1)
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    folder = Path(folder)
    for number in steps(folder):
        restored(folder / f"step_{number:010d}")
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover, ignore_errors=True)
    content = {"metadata": dict(metadata or {}), "step": step}
    write_tree(folder / f"step_{step:010d}", tree, content, overwrite=True)
    for old in steps(folder)[:-max_to_keep]:
        shutil.rmtree(folder / f"step_{old:010d}")


class Saver:
    """`save_checkpoint` in the background, one save at a time, while training goes on.

    The tree is copied to the host before `save` returns, so that buffers may be donated or changed
    afterwards. As a context manager it waits for the last save; on an error in the block, it does
    not hide that error behind one of its own.
    """

    def __init__(self, folder: str | Path, *, max_to_keep: int = 3):
        self.folder, self.max_to_keep = Path(folder), max_to_keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None

    def save(self, step: int, tree: PyTree, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Begin to save; arguments and errors are those of `save_checkpoint`.

        Waits for the save before, and raises what went wrong with that one.
        """
        self.wait()
        self._pending = self._thread.submit(
            save_checkpoint, self.folder, step, jax.tree.map(_on_host, tree),
            metadata=metadata, max_to_keep=self.max_to_keep,
        )  # fmt: skip

    def wait(self) -> None:
        """Until the last save is on disk; raises what went wrong with it, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """As `wait`, and no save can follow."""
        self._thread.shutdown(wait=True)
        self.wait()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            self._thread.shutdown(wait=True)
            return
        self.close()


def load_checkpoint(
    folder: str | Path,
    like: PyTree,
    *,
    step: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """The checkpoint of a step, or the newest that is whole and fits.

    Args:
      folder: Where the run's checkpoints are.
      like: A tree of the same structure, shapes and types, such as the initial TrainState.
      step: Which one; by default the newest. A damaged one is then passed over.
      metadata: Entries that the checkpoint's own must have, such as a name of the run; one with
        others is refused as foreign.

    Returns:
      The checkpoint; `refused` tells which newer ones were passed over, and why.

    Raises:
      FileNotFoundError: If there is none.
      ValueError: If the one asked for, or all of them, are damaged or do not fit; names the leaf.
      MissingExtraError: If the extra "storage" is not installed.
    """
    folder, refused = Path(folder), []
    wanted = steps(folder)[::-1] if step is None else [step]
    if not wanted:
        raise FileNotFoundError(f"there is no checkpoint in {folder}.")
    optional("orbax.checkpoint")  # Its absence is no fault of any checkpoint.
    for number in wanted:
        path = folder / f"step_{number:010d}"
        try:
            manifest = read_manifest(path)
            _check_content(path, number, manifest, metadata or {})
            tree = read_tree(path, manifest, like)
        except (ValueError, PermissionError) as error:
            refused.append(str(error))
        else:
            return Checkpoint(manifest["step"], tree, manifest["metadata"], tuple(refused))
    raise ValueError(" ".join(refused))


def checkpoint_metadata(folder: str | Path, step: int) -> dict[str, Any]:
    """The metadata of a checkpoint whose files are whole; errors as of `load_checkpoint`."""
    path = Path(folder) / f"step_{step:010d}"
    manifest = read_manifest(path)
    _check_content(path, step, manifest, {})
    return manifest["metadata"]


def steps(folder: str | Path) -> list[int]:
    """Steps of the checkpoints in a folder, in order."""
    # With those that were being replaced by another of the same step.
    names = [path.name for path in Path(folder).glob("*step_*")]
    matches = [re.fullmatch(r"step_(\d{10,})|\.step_(\d{10,})\.old", name) for name in names]
    return sorted({int(match[1] or match[2]) for match in matches if match})


def _on_host(leaf):
    """A copy: on a CPU the host's array would be the device's own buffer."""
    if jax.numpy.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        data = jax.numpy.array(jax.random.key_data(leaf), copy=True)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return np.array(leaf, copy=True)


def _check_content(path, step, manifest, wanted):
    found, own = manifest.get("metadata"), manifest.get("step")
    if not isinstance(found, dict) or own != step:
        raise ValueError(f"{path} must hold a checkpoint of step {step}, got something else.")
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f"{path} belongs to another run: {name} must be {value!r}, "
                f"got {found.get(name)!r:.80}."
            )
