# SPDX-License-Identifier: Apache-2.0
"""Positions copied between chunked arrays, a bounded part at a time."""

import numpy as np
import pytest
import tensorstore

from plprune.storage.pieces import _places, copy_positions


def stored(path, shape, chunk):
    metadata = {"shape": shape, "chunks": chunk, "dtype": "<i4"}
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open({**spec, "metadata": metadata}, create=True).result()


@pytest.mark.parametrize("most", [1, 30, 200, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_any_positions_of_any_chunks(tmp_path, seed, most):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 9, 3).tolist()
    values = rng.integers(0, 1000, shape).astype(np.int32)
    positions = [np.flatnonzero(rng.random(n) < 0.6) for n in shape]
    positions = [p if len(p) else np.array([n - 1]) for p, n in zip(positions, shape, strict=True)]
    source = stored(tmp_path / "source", shape, rng.integers(1, 5, 3).tolist())
    source.write(values).result()
    target = stored(tmp_path / "target", [*map(len, positions)], rng.integers(1, 5, 3).tolist())
    copy_positions(source, target, positions, most)
    assert np.array_equal(target.read().result(), values[np.ix_(*positions)])


def test_parts_touch_few_chunks_and_skip_those_without_a_position():
    positions, chunk = [np.array([0, 1, 7, 40, 41]), np.arange(6)], (4, 6)
    parts = list(_places(positions, chunk, itemsize=1, most=50))
    assert [part[0] for part in parts] == [slice(0, 3), slice(3, 5)]
    for part in parts:
        own = positions[0][part[0]]
        assert (own[-1] // 4 - own[0] // 4 + 1) * 24 <= 50


def test_no_positions_and_single_numbers(tmp_path):
    source, target = (stored(tmp_path / name, [], []) for name in ("a", "b"))
    source.write(7).result()
    copy_positions(source, target, [], 1)
    assert target.read().result() == 7
    source, target = (stored(tmp_path / name, [0, 3], [1, 3]) for name in ("c", "d"))
    copy_positions(source, target, [np.arange(0), np.arange(3)], 1)
