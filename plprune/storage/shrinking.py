# SPDX-License-Identifier: Apache-2.0
"""A checkpoint made smaller on disk, one array after the other, as `shrink` does in memory."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from plprune.extras import optional
from plprune.graph.paths import leaves_with_keys
from plprune.nodes.checks import concrete_keep
from plprune.nodes.cutting import kept_axes, lost_axes
from plprune.nodes.matching import is_hole, match_leaves
from plprune.storage.pieces import Positions, chunks, copy_positions
from plprune.storage.stores import Item, Stored, identifying, items, stored_tree, unboxed
from plprune.storage.tensors import SafeTensors, holds_tensors
from plprune.storage.work import Work
from plprune.types import Keep, NodeGroups


class Reduction(NamedTuple):
    """What cutting a checkpoint did; `print` shows it."""

    arrays: int
    cut: int  # Of these, those that are smaller now.
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        ratio = self.bytes_after / self.bytes_before if self.bytes_before else 1.0
        return (
            f"{self.cut} of {self.arrays} arrays cut: {self.bytes_before:,} bytes to "
            f"{self.bytes_after:,} ({ratio:.3f})"
        )


def shrink_checkpoint(
    source: str | Path,
    target: str | Path,
    groups: NodeGroups,
    keep: Keep,
    *,
    read_bytes: int = 2**26,
) -> Reduction:
    """`shrink` of a checkpoint on disk, without ever holding more than a part of one array.

    Parameters, running statistics and the moments of optimisers are cut wherever they lie in the
    checkpoint's tree, as `shrink` cuts them in a tree in memory, and every other array and file is
    copied. What comes out has the source's format, types and names. An orbax checkpoint keeps the
    number of chunks along each axis, and the shardings that it was saved with, but for axes whose
    new size the devices do not divide.

    The target appears complete or not at all. A run that is killed leaves a hidden folder beside
    the target, from which the next call with the same arguments goes on; the source is only read.
    `manifest.json` in the target has a SHA-256 sum of every file. One process writes to a target at
    a time; both lie in file systems, local or mounted.

    Args:
      source: The folder of an orbax checkpoint, or of a step of a `CheckpointManager`; or a file,
        or a folder of files, of safetensors whose names are the keys that `groups` knows, joined by
        dots.
      target: The folder to make.
      groups: From `find_nodes`, which takes shapes: see `storage.abstract_checkpoint`.
      keep: Group name -> [g] booleans, concrete.
      read_bytes: How much is read at once. A stored chunk can only be read as a whole: the memory
        that is needed is about three times the larger of this and the largest chunk.

    Returns:
      A `Reduction`; at once where an earlier call has made the target.

    Raises:
      FileNotFoundError: If there is no source.
      ValueError: as `shrink`, for a checkpoint whose leaves are not those of the groups; a source
        of no known format; a target that exists, or lies in the source. All of it before anything
        is written.
      MissingExtraError: If the extra "storage", or "safetensors", is not installed.

    Cost: what is kept is read and written once, and read once more for the sums.
    """
    source, target = Path(source), Path(target)
    if read_bytes < 1:
        raise ValueError(f"read_bytes must be at least 1, got {read_bytes}.")
    if not source.exists():
        raise FileNotFoundError(f"there is no checkpoint {source}.")
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"target must not lie in the source {source}, got {target}.")
    is_tensors = holds_tensors(source)
    content = (SafeTensors if is_tensors else _Orbax)(source, read_bytes)
    plan = _plan(content.tree, groups, keep)
    bits = _bits(keep, groups)
    work = Work(target, _identity(content.texts(), plan, bits))
    if work.begin():
        content.write(work, plan)
        work.finish({"keep": bits})
    return _reduction(plan)


def _plan(tree: PyTree, groups: NodeGroups, keep: Keep) -> dict[Stored, Positions]:
    """Every array, with the positions of it that stay; ValueError as `shrink`."""
    axes = kept_axes(groups, keep)
    touched = lost_axes(axes, groups)
    try:
        places = match_leaves(tree, groups, touched=touched, argument="source").places
    except ValueError:
        # Groups that were found on plain dictionaries do not know NNX's variables.
        tree = unboxed(tree)
        places = match_leaves(tree, groups, touched=touched, argument="source").places
    leaves = enumerate(leaf.value for leaf in leaves_with_keys(tree, is_hole))
    return {
        stored: axes[places[k]] if k in places else [np.arange(n) for n in stored.shape]
        for k, stored in leaves
        if not is_hole(stored)
    }


def _bits(keep, groups):
    """`keep` as JSON holds it."""
    masks = concrete_keep(keep, groups).items()
    return {name: "".join("01"[int(bit)] for bit in mask) for name, mask in masks}


def _identity(texts: list[bytes], plan: Mapping[Stored, Positions], bits: Any) -> str:
    """A sum of what decides on the target's content."""
    total = hashlib.sha256(json.dumps(bits, sort_keys=True).encode())
    for part in texts:
        total.update(hashlib.sha256(part).digest())
    for stored, positions in plan.items():
        total.update(repr(stored).encode())
        for axis in positions:
            total.update(hashlib.sha256(axis.tobytes()).digest())
    return total.hexdigest()


def _reduction(plan):
    sizes = [(prod(s.shape), prod(map(len, p)), s.dtype.itemsize) for s, p in plan.items()]
    return Reduction(
        len(plan),
        sum(before != after for before, after, _ in sizes),
        sum(before * width for before, _, width in sizes),
        sum(after * width for _, after, width in sizes),
    )


class _Orbax:
    """A checkpoint of orbax, with one item or several."""

    def __init__(self, source: Path, read_bytes: int):
        self.source, self.read_bytes = source, read_bytes
        self.tree = stored_tree(source)
        # Chunks are used once: keeping them would only take memory.
        cache = {"cache_pool": {"total_bytes_limit": 0}, "data_copy_concurrency": {"limit": 2}}
        self.context = optional("tensorstore").Context(cache)

    def texts(self) -> list[bytes]:
        """What tells this checkpoint from others, without the arrays."""
        return [x for folder in items(self.source) for x in identifying(self.source / folder)]

    def write(self, work: Work, plan: Mapping[Stored, Positions]) -> None:
        """Every item with the positions that stay of its arrays, and the files beside them."""
        folders = items(self.source)
        for folder in folders:
            own = {stored: axes for stored, axes in plan.items() if stored.folder == folder}
            self._write_item(work, folder, own)
        if folders != ["."]:
            self._write_others(work, folders)

    def _write_item(self, work, folder, plan):
        item, target = Item(self.source / folder, self.context), work.content / folder
        target.mkdir(parents=True, exist_ok=True)
        cut = {}
        for stored, positions in plan.items():
            shape, step = tuple(map(len, positions)), f"{folder}/{stored.name}"
            array = item.open(stored.name)
            if step in work.done:
                made = Item(target, self.context, like=item).open(stored.name)
            else:
                made = item.create(target, stored.name, array, shape, self.read_bytes)
                copy_positions(array, made, positions, self.read_bytes)
                work.mark(step)
            if shape != stored.shape:
                cut[stored.name] = shape, chunks(made)
        item.write_texts(target, cut)
        for file in item.others([stored.name for stored in plan]):
            _copy(file, target / file.relative_to(item.path))

    def _write_others(self, work, folders):
        """Files of the step, and of items that hold no tree of arrays."""
        own = [self.source / folder for folder in folders]
        for file in sorted(p for p in self.source.rglob("*") if p.is_file()):
            if not any(file.is_relative_to(folder) for folder in own):
                _copy(file, work.content / file.relative_to(self.source))


def _copy(file, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
