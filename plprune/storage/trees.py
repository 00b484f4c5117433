# SPDX-License-Identifier: Apache-2.0
"""A tree of arrays as a folder: one sub-folder per leaf, and sums that show any damage."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from plprune.data.files import LARGEST_TEXT, content, opened, text
from plprune.data.prepared import quiet
from plprune.extras import optional
from plprune.graph.paths import leaves_with_keys, printed
from plprune.storage.places import (
    beside,
    found,
    hashed_name,
    leaf_folders,
    put,
    quoted_name,
    restored,
)

FORMAT = 1
ARRAYS, MANIFEST, MANIFEST_SUM = "arrays", "manifest.json", "manifest.sha256"


def write_tree(path: Path, tree: PyTree, extra: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write a tree of arrays (random keys included) and JSON `extra` to the folder `path`.

    The folder appears complete or not at all: it is written beside and renamed. A link at `path` is
    followed, a file there is replaced as a folder would be.

    Raises:
      ValueError: If `path` exists and `overwrite` is False, or two leaves have one name.
      MissingExtraError: If the extra "storage" is not installed.
    """
    orbax, place = optional("orbax.checkpoint"), restored(path)
    if os.path.lexists(place) and not overwrite:
        raise ValueError(f"{path} exists; pass overwrite=True to replace it.")
    leaves = _named(tree)
    folders = leaf_folders(leaves)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=beside(place, "").name))
    try:
        _write_arrays(orbax, temporary / ARRAYS, leaves, folders)
        files = files_in(temporary)
        manifest = {
            "format": FORMAT,
            "leaves": {name: _described(leaf) for name, leaf in leaves.items()},
            "hashed": [name for name in leaves if folders[name] == hashed_name(name)],
            "random": {name: _implementation(x) for name, x in leaves.items() if _is_key(x)},
            "files": {file: file_sum(temporary / file) for file in files},
            "bytes": sum((temporary / file).stat().st_size for file in files),
            **extra,
        }
        write_manifest(temporary, manifest)
        put(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a folder, every file of which is first held against its sum.

    Raises:
      FileNotFoundError: If there is no such folder.
      ValueError: If a file is damaged, missing or unknown; names the leaf it belongs to.
    """
    place = found(path)
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder {path}.")
    try:
        expected, actual = text(place / MANIFEST_SUM), file_sum(place / MANIFEST, LARGEST_TEXT)
    except (OSError, ValueError):
        raise ValueError(f"{path} is damaged: it has no readable {MANIFEST}.") from None
    if expected != f"{actual}  {MANIFEST}\n":
        raise ValueError(f"{path} is damaged: {MANIFEST} does not match its sum.")
    manifest = _parsed(path, place)
    files = set(files_in(place)) - {MANIFEST, MANIFEST_SUM}
    for file in sorted(files | manifest["files"].keys()):
        # Sums vouch for damage, not for intent: a link could lead anywhere.
        is_ours = file in files and not (place / file).is_symlink()
        if not is_ours or not _matches(place / file, manifest, file):
            raise ValueError(f"{path} is damaged: {_owner(file, manifest)}.")
    return manifest


def _matches(path, manifest, file):
    try:
        return file_sum(path, manifest.get("bytes", sys.maxsize)) == manifest["files"].get(file)
    except (OSError, ValueError):
        return False


def read_tree(path: Path, manifest: Mapping[str, Any], like: PyTree) -> PyTree:
    """The tree of a folder, with the structure, shapes and types of `like` (arrays or shapes).

    Raises:
      ValueError: If a leaf is missing or unknown, or has another shape or type; names it.
      MissingExtraError: If the extra "storage" is not installed.
    """
    orbax = optional("orbax.checkpoint")
    stored = manifest["leaves"]
    expected = {name: _described(leaf) for name, leaf in _named(like, stored).items()}
    for name in sorted(expected.keys() | stored.keys()):
        if stored.get(name) != expected.get(name):
            have, want = (_shown(leaves.get(name)) for leaves in (stored, expected))
            raise ValueError(f"{path}: leaf {name} must be {want}, got {have}.")
    try:
        arrays = _read_arrays(orbax, found(path) / ARRAYS, stored, _folders(manifest))
        for name, implementation in manifest["random"].items():
            arrays[name] = jax.random.wrap_key_data(arrays[name], impl=implementation)
    except Exception as error:  # Whatever orbax makes of a folder whose sums were forged.
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None
    for name, array in arrays.items():
        if _described(array) != expected[name]:
            raise ValueError(f"{path} is damaged: leaf {name} is {_shown(_described(array))}.")
    leaves = [arrays[name] for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _parsed(path, place):
    """The manifest as JSON of the expected form, whoever wrote it."""
    try:
        manifest = json.loads(content(place / MANIFEST, LARGEST_TEXT))
        form = manifest["format"]
        hashed, size = manifest.get("hashed", []), manifest.get("bytes", 0)
        parts = [manifest[part] for part in ("leaves", "random", "files")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path} is damaged: {MANIFEST} is not one of ours.") from None
    if form != FORMAT:
        raise ValueError(f"{path} must have format {FORMAT}, got {form!r:.40}.")
    leaves, random, files = parts
    if not all(isinstance(part, dict) for part in parts) or not (
        all(isinstance(value, str) for value in (*random.values(), *files.values()))
        and all(map(_is_description, leaves.values()))
        and random.keys() <= leaves.keys()
        and isinstance(hashed, list)
        and isinstance(size, int)
    ):
        raise ValueError(f"{path} is damaged: {MANIFEST} is not one of ours.")
    return manifest


def _is_description(value):
    return isinstance(value, dict) and value.keys() == {"shape", "dtype"}


def _named(tree, stored=None):
    """Leaves by name; by the names with Flax's boxes where only these are `stored`."""
    leaves = leaves_with_keys(tree)
    names = [".".join(map(str, leaf.keys)) for leaf in leaves]
    shown = printed([leaf.keys for leaf in leaves])
    alike = [unlike for name, unlike in zip(names, shown, strict=True) if name != unlike]
    if alike:
        raise ValueError(
            "leaves must have distinct names when their keys are joined by dots, got "
            f"{' and '.join(alike)}."
        )
    if stored is not None and stored.keys() != set(names):
        paths, _ = jax.tree_util.tree_flatten_with_path(tree)
        boxed = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
        names = boxed if stored.keys() == set(boxed) else names
    return {name: leaf.value for name, leaf in zip(names, leaves, strict=True)}


def _described(leaf):
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _shown(description):
    return f"{description['dtype']}{description['shape']}" if description else "absent"


def _is_key(leaf):
    return jax.numpy.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def _is_key_type(dtype):
    return dtype.startswith("key<")


def _implementation(key):
    return str(jax.random.key_impl(key))


def _folders(manifest):
    """Leaf -> its folder; no name from a file leads out of where the arrays are."""
    hashed = manifest.get("hashed", [])
    return {
        name: hashed_name(name) if name in hashed else quoted_name(name)
        for name in manifest["leaves"]
    }


def _write_arrays(orbax, folder, leaves, folders):
    # NumPy's arrays: of jax's own, orbax expects every process to write its part.
    arrays = {
        folders[name]: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for name, leaf in leaves.items()
        if np.size(leaf)  # Orbax saves no empty arrays; their shape says it all.
    }
    if not arrays:
        folder.mkdir()
        return
    with quiet(), _checkpointer(orbax) as checkpointer:
        checkpointer.save(folder.absolute(), arrays)


def _checkpointer(orbax):
    """Orbax for this process alone: of several, it would else wait for all to come here."""
    own = jax.process_index()
    options = orbax.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )
    handler = orbax.PyTreeCheckpointHandler(use_ocdbt=False, multiprocessing_options=options)
    return orbax.Checkpointer(handler, multiprocessing_options=options)


def _read_arrays(orbax, folder, names, folders):
    empty = {name: d for name, d in names.items() if 0 in d["shape"]}
    arrays = {name: np.zeros(d["shape"], d["dtype"]) for name, d in empty.items()}
    names = {name: described for name, described in names.items() if name not in empty}
    if not names:
        return {name: _on_device(array) for name, array in arrays.items()}
    for name, described in names.items():
        # Orbax would make room for whatever shape the file claims.
        claimed = json.loads(text(folder / folders[name] / ".zarray"))["shape"]
        if not _is_key_type(described["dtype"]) and claimed != described["shape"]:
            raise ValueError(f"leaf {name} is stored as {claimed!r:.80}.")
    arguments = {folders[name]: orbax.RestoreArgs(restore_type=np.ndarray) for name in names}
    with quiet(), _checkpointer(orbax) as checkpointer:
        options = orbax.args.PyTreeRestore(restore_args=arguments)
        restored = checkpointer.restore(folder.absolute(), args=options)
    arrays |= {name: restored[folders[name]] for name in names}
    return {name: _on_device(array) for name, array in arrays.items()}


def _on_device(array):
    """As jax's array where jax holds its type now; float64 may have to stay NumPy's."""
    same = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    return jax.numpy.asarray(array) if same else array


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """The manifest of a folder, and beside it its sum."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (folder / MANIFEST_SUM).write_text(f"{file_sum(folder / MANIFEST)}  {MANIFEST}\n")


def files_in(folder: Path) -> list[str]:
    """Paths of all files below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def _owner(file, manifest):
    parts = Path(file).parts
    if len(parts) > 2 and parts[0] == ARRAYS:
        leaves = {folder: name for name, folder in _folders(manifest).items()}
        return f"leaf {leaves.get(parts[1], parts[1])}"
    return f"file {file}"


def file_sum(path: Path, largest: int = sys.maxsize) -> str:
    """SHA-256 of a file; errors as of `opened`."""
    with opened(path, largest) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
