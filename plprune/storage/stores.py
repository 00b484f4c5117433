# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints on disk: which arrays they hold, opened one by one, and the texts about them.

A checkpoint is a folder with a file `_METADATA`, or one with such folders in it: a step of orbax's
`CheckpointManager` has one for every item.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from plprune.data.files import text
from plprune.extras import optional
from plprune.storage.pieces import Chunks, chunks

METADATA, SHARDINGS, ARRAYS = "_METADATA", "_sharding", "array_metadatas"
_OCDBT = "manifest.ocdbt"


@dataclass(frozen=True)
class Stored:
    """An array in a checkpoint: a leaf of its tree."""

    folder: str  # Of the item, within the checkpoint; "." where it is the checkpoint itself.
    name: str  # Keys joined by dots, as orbax names it.
    shape: tuple[int, ...]
    dtype: np.dtype


def abstract_checkpoint(path: str | Path) -> PyTree:
    """Shapes and types of the arrays in an orbax checkpoint; no array is read.

    Args:
      path: The folder of a checkpoint, or of a step of a `CheckpointManager`, whose items are then
        the first keys.

    Returns:
      Nested dictionaries and lists of `jax.ShapeDtypeStruct`, with None where nothing is stored.
      What orbax made of an `nnx.Variable`, a mapping of "value" alone, is the array itself.

    Raises:
      FileNotFoundError: If there is no such folder.
      ValueError: If it is no checkpoint of orbax.
      MissingExtraError: If the extra "storage" is not installed.
    """
    tree = unboxed(stored_tree(Path(path)))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def stored_tree(path: Path) -> PyTree:
    """The tree of a checkpoint, a `Stored` for every array; errors of `abstract_checkpoint`."""
    orbax = optional("orbax.checkpoint")
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}.")
    found = items(path)
    if not found:
        raise ValueError(f"{path} must hold a checkpoint of orbax: no {METADATA} lies in it.")
    whole: dict[str, Any] = {}
    for folder in found:
        metadata = orbax.PyTreeCheckpointHandler().metadata((path / folder).absolute())
        tree = jax.tree.map(lambda leaf, f=folder: _stored(f, leaf), metadata.tree)
        if folder == ".":
            return tree
        *above, last = Path(folder).parts
        node = whole
        for part in above:
            node = node.setdefault(part, {})
        node[last] = tree
    return whole


def _stored(folder, leaf):
    shape = getattr(leaf, "shape", None)
    if shape is None:  # A string is no array.
        return None
    return Stored(folder, leaf.name, tuple(shape), np.dtype(leaf.dtype))


def items(path: Path) -> list[str]:
    """Folders within a checkpoint that hold a tree of arrays each."""
    if (path / METADATA).is_file():
        return ["."]
    return sorted(file.parent.relative_to(path).as_posix() for file in path.rglob(METADATA))


def unboxed(tree: PyTree) -> PyTree:
    """The tree with arrays in place of mappings of "value" alone, as NNX's variables are stored."""
    if isinstance(tree, Mapping):
        if tree.keys() == {"value"} and isinstance(tree["value"], Stored):
            return tree["value"]
        return {key: unboxed(value) for key, value in tree.items()}
    if isinstance(tree, Sequence):
        return [unboxed(value) for value in tree]
    return tree


class Item:
    """An item's folder, in the format that its texts tell."""

    def __init__(self, path: Path, context: Any, like: "Item | None" = None):
        """The item in a folder; with `like`, one that is still being made in the other's format."""
        self.path, self.context = path, context
        self.texts = json.loads(text((like or self).path / METADATA))
        self.is_ocdbt = ((like or self).path / _OCDBT).is_file()
        self.driver = "zarr3" if self.texts.get("use_zarr3") else "zarr"

    def open(self, name: str) -> Any:
        """An array, to be read."""
        store = optional("tensorstore")
        spec = _spec(self.path, name, self.is_ocdbt, self.driver)
        return store.open(spec, open=True, read=True, context=self.context).result()

    def create(self, target: Path, name: str, like: Any, shape: Sequence[int], most: int) -> Any:
        """An array of another shape in `target`, in chunks and in a code like those of `like`.

        One that is there, from a run that was killed while it wrote it, is written anew.
        """
        store = optional("tensorstore")
        metadata = like.spec().to_json()["metadata"]
        written, read = smaller_chunks(like, shape, most)
        metadata["shape"] = list(shape)
        if self.driver == "zarr":
            metadata["chunks"] = list(written)
        else:
            metadata["chunk_grid"]["configuration"]["chunk_shape"] = list(written)
            for codec in metadata["codecs"]:
                if codec["name"] == "sharding_indexed":
                    codec["configuration"]["chunk_shape"] = list(read)
        spec = _spec(target, name, self.is_ocdbt, self.driver)
        # Zeros are written too: orbax does so, and missing chunks look like damage.
        spec |= {"metadata": metadata, "store_data_equal_to_fill_value": True}
        return store.open(spec, create=True, delete_existing=True, context=self.context).result()

    def others(self, names: Sequence[str]) -> Iterator[Path]:
        """Files of the item that hold no arrays, and nothing about them."""
        own = {METADATA, SHARDINGS, ARRAYS, _OCDBT, "d", *(Path(name).parts[0] for name in names)}
        for entry in sorted(self.path.iterdir()):
            if entry.name in own or entry.name.startswith("ocdbt.process_"):
                continue
            yield from (p for p in ([entry] if entry.is_file() else sorted(entry.rglob("*"))))

    def write_texts(self, target: Path, cut: Mapping[str, tuple[tuple[int, ...], Chunks]]) -> None:
        """What orbax reads about the arrays, with new shapes and chunks, by name, of some."""
        for entry in self.texts["tree_metadata"].values():
            name = ".".join(str(key["key"]) for key in entry["key_metadata"])
            if name in cut and "write_shape" in entry["value_metadata"]:
                entry["value_metadata"]["write_shape"] = list(cut[name][1][0])
        (target / METADATA).write_text(json.dumps(self.texts))
        self._write_arrays(target, cut)
        if (self.path / SHARDINGS).is_file():
            shardings = json.loads(text(self.path / SHARDINGS))
            for key, value in shardings.items():
                name = base64.b64decode(key).decode()
                if name in cut:
                    shardings[key] = _fitting(value, cut[name][0])
            (target / SHARDINGS).write_text(json.dumps(shardings))

    def _write_arrays(self, target, cut):
        for file in sorted(self.path.glob(f"{ARRAYS}/*")):
            listed = json.loads(text(file))
            for entry in listed["array_metadatas"]:
                own = entry["array_metadata"]
                if own["param_name"] in cut:
                    written, read = cut[own["param_name"]][1]
                    own["write_shape"], own["chunk_shape"] = list(written), list(read)
            (target / ARRAYS).mkdir(exist_ok=True)
            (target / ARRAYS / file.name).write_text(json.dumps(listed))


def identifying(item: Path) -> list[bytes]:
    """What tells an item from others of the same tree, as the time at which it was saved."""
    names = (METADATA, _OCDBT, "_CHECKPOINT_METADATA", "../_CHECKPOINT_METADATA")
    return [(item / name).read_bytes() for name in names if (item / name).is_file()]


def _spec(folder, name, is_ocdbt, driver):
    base = {"driver": "file", "path": f"{folder.absolute()}/"}
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    if not is_ocdbt:
        store = {"driver": "file", "path": f"{folder.absolute()}/{name}/"}
    return {"driver": driver, "kvstore": store}


def smaller_chunks(like: Any, shape: Sequence[int], most: int) -> Chunks:
    """As many chunks along each axis of an array of another shape.

    Those that are read may lie in larger ones, as those of one device each; where these have more
    than `most` bytes they are given up, for they can only be written as a whole.
    """
    written, read = chunks(like)
    inner = [w // max(r, 1) for w, r in zip(written, read, strict=True)]
    outer = [ceil(n / max(w, 1)) for n, w in zip(like.shape, written, strict=True)]
    small = tuple(
        max(1, ceil(n / max(a * b, 1))) for n, a, b in zip(shape, outer, inner, strict=True)
    )
    large = tuple(r * k for r, k in zip(small, inner, strict=True))
    return (small if prod(large) * like.dtype.numpy_dtype.itemsize > most else large), small


def _fitting(value: str, shape: Sequence[int]) -> str:
    """Orbax's text of a sharding without the axes whose new size the devices do not divide."""
    sharding = json.loads(value)
    if sharding.get("sharding_type") != "NamedSharding":
        return value
    sizes = dict(zip(sharding["axis_names"], sharding["shape"], strict=True))

    def fits(own, size):
        names = own if isinstance(own, list) else [own]
        return own is None or size % prod(sizes[name] for name in names) == 0

    spec = zip(sharding["partition_spec"], shape, strict=False)
    sharding["partition_spec"] = [own if fits(own, size) else None for own, size in spec]
    return json.dumps(sharding)
