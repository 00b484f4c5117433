"""Checkpoints of a run: the newest few, each whole or refused."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import PyTree

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
    """
    if step < 0 or max_to_keep < 1:
        name, value, least = ("step", step, 0) if step < 0 else ("max_to_keep", max_to_keep, 1)
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    folder = Path(folder)
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover, ignore_errors=True)
    content = {"metadata": dict(metadata or {}), "step": step}
    write_tree(folder / f"step_{step:010d}", tree, content, overwrite=True)
    for old in steps(folder)[:-max_to_keep]:
        shutil.rmtree(folder / f"step_{old:010d}")


def load_checkpoint(folder: str | Path, like: PyTree, *, step: int | None = None) -> Checkpoint:
    """The checkpoint of a step, or the newest that is whole and fits.

    Args:
      folder: Where the run's checkpoints are.
      like: A tree of the same structure, shapes and types, such as the initial TrainState.
      step: Which one; by default the newest. A damaged one is then passed over.

    Returns:
      The checkpoint; `refused` tells which newer ones were passed over, and why.

    Raises:
      FileNotFoundError: If there is none.
      ValueError: If the one asked for, or all of them, are damaged or do not fit; names the leaf.
    """
    folder, refused = Path(folder), []
    wanted = steps(folder)[::-1] if step is None else [step]
    if not wanted:
        raise FileNotFoundError(f"there is no checkpoint in {folder}.")
    for number in wanted:
        path = folder / f"step_{number:010d}"
        try:
            manifest = read_manifest(path)
            tree = read_tree(path, manifest, like)
        except ValueError as error:
            refused.append(str(error))
        else:
            return Checkpoint(manifest["step"], tree, manifest["metadata"], tuple(refused))
    raise ValueError(" ".join(refused))


def steps(folder: str | Path) -> list[int]:
    """Steps of the checkpoints in a folder, in order."""
    names = [path.name for path in Path(folder).glob("step_*")]
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step_\d{10,}", name))
