# SPDX-License-Identifier: Apache-2.0
"""Files of safetensors: a header that says where each array lies, and the arrays."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from plprune.extras import optional
from plprune.storage.pieces import Positions
from plprune.storage.stores import METADATA, Stored
from plprune.storage.work import Work

SUFFIX, _INDEX = ".safetensors", ".safetensors.index.json"
_ABOUT = "__metadata__"
_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


def holds_tensors(path: Path) -> bool:
    """Whether something is a file of safetensors, or a folder with such."""
    if path.is_dir():
        return not (path / METADATA).is_file() and any(path.glob(f"*{SUFFIX}"))
    return path.name.endswith(SUFFIX)


@dataclass(frozen=True)
class _Header:
    """What stands in front of the arrays of a file."""

    entries: dict[str, Any]
    start: int  # Of the first array, in the file.


class SafeTensors:
    """Files of safetensors as a tree, by their names, whose keys are joined by dots.

    Raises:
      ValueError: a name in two files, or one that is the beginning of another; a damaged file.
    """

    def __init__(self, source: Path, read_bytes: int):
        self.library = optional("safetensors")
        self.source, self.read_bytes = source, read_bytes
        files = sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else [source]
        self.headers = {file: self._header(file) for file in files}
        self.tree: dict[str, Any] = {}
        for file, header in self.headers.items():
            for name, entry in header.entries.items():
                if name != _ABOUT:
                    _put(self.tree, name.split("."), _stored(file, name, entry))

    def _header(self, file) -> _Header:
        try:
            # The library holds every offset against the file's size.
            with self.library.safe_open(file, framework="numpy"):
                pass
        except self.library.SafetensorError as error:
            raise ValueError(f"{file} is damaged: {error}.") from None
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            return _Header(json.loads(opened.read(length)), 8 + length)

    def texts(self) -> list[bytes]:
        """What tells this source from others, without the arrays."""
        stats = ((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self.headers)
        return [json.dumps([*stats, *(h.entries for h in self.headers.values())]).encode()]

    def write(self, work: Work, plan: Mapping[Stored, Positions]) -> None:
        """Every file with the positions that stay of its arrays, and the files beside them."""
        for file, header in self.headers.items():
            own = {s.name: axes for s, axes in plan.items() if s.folder == file.name}
            small = _smaller(header, own)
            target = work.content / file.name
            if file.name not in work.done:
                _write_header(target, small)
                work.mark(file.name)
            self._write_arrays(work, file, (header, _placed(small)), own)
        if self.source.is_dir():
            self._write_others(work, plan)

    def _write_arrays(self, work, file, headers, own):
        header, small = headers
        with file.open("rb") as opened, (work.content / file.name).open("r+b") as target:
            for name, positions in own.items():
                step = f"{file.name}/{name}"
                if step in work.done:
                    continue
                target.seek(small.start + small.entries[name]["data_offsets"][0])
                begin = header.start + header.entries[name]["data_offsets"][0]
                kind = _stored(file, name, header.entries[name])
                for rows in _rows(opened, begin, kind, positions, self.read_bytes):
                    target.write(rows)
                target.flush()
                work.mark(step)

    def _write_others(self, work, plan):
        total = sum(prod(map(len, axes)) * s.dtype.itemsize for s, axes in plan.items())
        for file in sorted(p for p in self.source.rglob("*") if p.is_file()):
            target = work.content / file.relative_to(self.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.name.endswith(_INDEX):
                index = json.loads(file.read_text())
                index.setdefault("metadata", {})["total_size"] = total
                target.write_text(json.dumps(index, indent=2))
            elif file not in self.headers:
                shutil.copyfile(file, target)


def _put(tree, keys, leaf):
    *above, last = keys
    for key in above:
        tree = tree.setdefault(key, {})
        if isinstance(tree, Stored):
            raise ValueError(f"{leaf.name} must not begin with the name of another array.")
    if last in tree:
        raise ValueError(f"{leaf.name} must be the name of one array, and begin no other's.")
    tree[last] = leaf


def _stored(file, name, entry) -> Stored:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    kind = _TYPES.get(entry["dtype"])
    if kind is None:  # Numbers that are not looked at, of whole bytes.
        width, rest = divmod(end - begin, max(prod(shape), 1))
        if rest:
            raise ValueError(f"{file}: {name} is of {entry['dtype']}, which has no whole bytes.")
        kind = f"V{width}"
    return Stored(file.name, name, shape, np.dtype(kind))


def _smaller(header, positions) -> dict[str, Any]:
    """The entries of a header for smaller arrays, which lie one after the other."""
    entries, end = {}, 0
    for name, entry in header.entries.items():
        if name == _ABOUT:
            entries[name] = entry
            continue
        begin, last = entry["data_offsets"]
        count = max(prod(entry["shape"]), 1)
        shape = [len(axis) for axis in positions[name]]
        size = prod(shape) * ((last - begin) // count)
        entries[name] = {**entry, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return entries


def _placed(entries) -> _Header:
    return _Header(entries, 8 + len(_header_bytes(entries)))


def _header_bytes(entries):
    written = json.dumps(entries, separators=(",", ":")).encode()
    return written + b" " * (-len(written) % 8)  # Arrays begin at multiples of eight.


def _write_header(target, entries):
    written = _header_bytes(entries)
    size = max((x["data_offsets"][1] for name, x in entries.items() if name != _ABOUT), default=0)
    with target.open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + size)


def _rows(file, begin, stored: Stored, positions: Positions, most: int) -> Iterator[bytes]:
    """The bytes of the positions that stay, rows of at most `most` bytes read at a time."""
    shape = stored.shape or (1,)
    first, *others = positions or [np.zeros(1, int)]
    width = prod(shape[1:]) * stored.dtype.itemsize
    step = max(1, most // max(width, 1))
    for start in range(0, shape[0], step):
        rows = first[(first >= start) & (first < start + step)]
        if not len(rows) or not width:
            continue
        file.seek(begin + int(rows[0]) * width)
        count = int(rows[-1] - rows[0]) + 1
        read = np.frombuffer(file.read(count * width), stored.dtype).reshape(count, *shape[1:])
        yield read[np.ix_(rows - rows[0], *others)].tobytes()
