# SPDX-License-Identifier: Apache-2.0
"""The array cache: built once, never trusted blindly."""

import numpy as np
import pytest

from plprune.data.cache import cached

ARRAYS = {"images": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": np.array([1, 0])}


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ARRAYS


@pytest.fixture
def build():
    return Builder()


def test_builds_once_and_reads_the_same_arrays(tmp_path, build):
    for _ in range(2):
        arrays = cached("toy", build, folder=tmp_path / "new")
        np.testing.assert_equal(arrays, ARRAYS)
    assert build.calls == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["toy.npz", "toy.sha256"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "checksum"])
def test_damaged_file_is_built_again(tmp_path, build, damage):
    cached("toy", build, folder=tmp_path)
    path = tmp_path / ("toy.sha256" if damage == "checksum" else "toy.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content[:-1] if damage == "truncate" else content)
    np.testing.assert_equal(cached("toy", build, folder=tmp_path), ARRAYS)
    assert build.calls == 2
    cached("toy", build, folder=tmp_path)
    assert build.calls == 2


def test_folder_that_cannot_be_written_only_costs_time(tmp_path, build):
    (tmp_path / "file").write_text("")
    np.testing.assert_equal(cached("toy", build, folder=tmp_path / "file" / "under"), ARRAYS)


def test_failure_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cached("toy", lambda: ARRAYS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_unpickled(tmp_path):
    pickled = {"x": np.array([{}])}
    cached("toy", lambda: pickled, folder=tmp_path)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        cached("toy", lambda: pickled, folder=tmp_path)
