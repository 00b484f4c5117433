# SPDX-License-Identifier: Apache-2.0
"""Shrunk models on disk: their arrays, and which nodes were kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from plprune.nodes import shrink
from plprune.nodes.checks import keep_mask
from plprune.storage.trees import read_manifest, read_tree, write_tree
from plprune.types import Keep, NodeGroups


class Shrunk(NamedTuple):
    """A shrunk tree, and which nodes of the original model it keeps."""

    tree: PyTree
    keep: Keep


def save_shrunk(
    path: str | Path,
    tree: PyTree,
    keep: Keep,
    *,
    overwrite: bool = False,
) -> None:
    """Write what `shrink` returned, and the `keep` it was given, to the folder `path`.

    The arrays are written by orbax, the rest is JSON with a SHA-256 sum of every file; nothing is
    pickled, and the folder appears complete or not at all: a process killed while it replaces one
    leaves the old or the new for `load_shrunk`, and the next save tidies up. One process writes to
    a path at a time.

    Args:
      path: The folder; must not exist unless `overwrite`. Where it is a link, the folder that the
        link points to is written.
      tree: Shrunk parameters, `(params, state)`, or any tree that `shrink` returned.
      keep: Which nodes were kept, by group.
      overwrite: Whether to replace what is there, a folder or a file.

    Raises:
      ValueError: If something is there already, or a group's `keep` is no mask: a vector of
        booleans, or of exact 0 and 1.
      MissingExtraError: If the extra "storage" is not installed.
    """
    if not isinstance(keep, Mapping):
        raise ValueError(f"keep must map names of groups to masks, got {type(keep).__name__}.")
    kept = {name: keep_mask(mask, f"keep[{name!r}]", np.size(mask)) for name, mask in keep.items()}
    bits = {name: "".join("01"[int(bit)] for bit in mask) for name, mask in kept.items()}
    write_tree(Path(path), tree, {"keep": bits}, overwrite=overwrite)


def load_shrunk(path: str | Path, like: PyTree, groups: NodeGroups) -> Shrunk:
    """Read what `save_shrunk` wrote, checked against the original model.

    Args:
      path: The folder.
      like: The tree before shrinking, as arrays or shapes (`jax.eval_shape` of the constructor).
      groups: `find_nodes` of the original model.

    Returns:
      The shrunk tree and what was kept, ready for `resize` and `shrink_model`.

    Raises:
      FileNotFoundError: If there is no such folder.
      ValueError: If a file is damaged, or a leaf or group does not fit the model; names it.
      MissingExtraError: If the extra "storage" is not installed.
    """
    path = Path(path)
    manifest = read_manifest(path)
    stored = manifest.get("keep")
    if not isinstance(stored, dict) or not all(map(_is_bits, stored.values())):
        raise ValueError(f"{path} must hold a shrunk model, got something else.")
    keep = {name: np.array([bit == "1" for bit in bits]) for name, bits in stored.items()}
    for name, mask in keep.items():
        size = groups[name].size if name in groups else 0
        if size != len(mask):
            raise ValueError(f"{path}: group {name} must have {size} nodes, got {len(mask)}.")
    shapes = jax.eval_shape(lambda tree: shrink(tree, groups, keep), like)
    return Shrunk(read_tree(path, manifest, shapes), keep)


def _is_bits(value):
    return isinstance(value, str) and set(value) <= {"0", "1"}
