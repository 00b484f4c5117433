# SPDX-License-Identifier: Apache-2.0
"""Chosen positions of an array copied from one store to another, a bounded part at a time."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

Positions = list[np.ndarray]  # Per axis: sorted, of the source.
Chunks = tuple[tuple[int, ...], tuple[int, ...]]  # As they are written and, within, read.


def chunks(array: Any) -> Chunks:
    """Shapes of an array's chunks, as they are written and as they are read."""
    layout = array.chunk_layout  # Of a single number it has no shapes.
    return tuple(layout.write_chunk.shape or ()), tuple(layout.read_chunk.shape or ())


def copy_positions(source: Any, target: Any, positions: Positions, most: int) -> None:
    """Write what lies at `positions` of a source into the whole of a target.

    Each chunk of the target is written once. For it the source is read in parts that touch at most
    `most` bytes of chunks, or a single chunk where that is larger; chunks without a position are
    not read.
    """
    for block in _blocks(target.shape, chunks(target)[0]):
        own = [axis[part] for axis, part in zip(positions, block, strict=True)]
        shape = tuple(part.stop - part.start for part in block)
        values = np.empty(shape, source.dtype.numpy_dtype)
        for place in _places(own, chunks(source)[1], values.itemsize, most):
            read = tuple(_index(axis[part]) for axis, part in zip(own, place, strict=True))
            values[place] = source.oindex[read].read().result()
        target[block].write(values).result()


def _blocks(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The chunks of an array, as slices; none of an empty one."""
    starts = (range(0, size, step) for size, step in zip(shape, chunk, strict=True))
    for corner in product(*starts):
        ends = (min(n, x + c) for n, x, c in zip(shape, corner, chunk, strict=True))
        yield tuple(map(slice, corner, ends))


def _places(positions: Positions, chunk, itemsize, most) -> Iterator[tuple[slice, ...]]:
    """Parts of a grid of positions whose chunks have few bytes together, as slices of the grid."""
    left = [tuple(slice(0, len(axis)) for axis in positions)]
    while left:
        place = left.pop()
        own = [axis[part] for axis, part in zip(positions, place, strict=True)]
        first = [axis[0] // c for axis, c in zip(own, chunk, strict=True)]
        spans = [axis[-1] // c - f + 1 for axis, c, f in zip(own, chunk, first, strict=True)]
        if max(spans, default=1) == 1 or prod(spans) * prod(chunk) * itemsize <= most:
            yield place
            continue
        d = int(np.argmax(spans))
        middle = (first[d] + spans[d] // 2) * chunk[d]
        cut = place[d].start + int(np.searchsorted(own[d], middle))
        for part in (slice(cut, place[d].stop), slice(place[d].start, cut)):
            left.append((*place[:d], part, *place[d + 1 :]))


def _index(positions: np.ndarray) -> slice | np.ndarray:
    """A slice where positions follow each other: it is copied in rows."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else positions
