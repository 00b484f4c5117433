# SPDX-License-Identifier: Apache-2.0
"""Checkpoints by orbax: every bit back, the newest three, damage noticed."""

import numpy as np
import pytest

from experiments.checkpoints import Checkpoints
from experiments.resuming import packed, unpacked

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "state/0": RANDOM.normal(size=(300, 300)),  # Too large, and too random, to hide in metadata.
    "state/1": np.float32([1, -0.0, np.nan]),
    "info/gd/[a], b": np.zeros((0, 4), np.int8),
    "done": np.asarray(7),
}


def same(content):
    found = unpacked(content)
    assert set(found) == set(ARRAYS)
    for key, array in ARRAYS.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), key
        assert found[key].tobytes() == array.tobytes(), key


def saved(folder, *steps, mark="m"):
    checkpoints = Checkpoints(folder, mark)
    for step in steps:
        checkpoints.save(step, packed(ARRAYS))
    checkpoints.close()
    return Checkpoints(folder, mark)


def test_arrays_of_every_kind_come_back(tmp_path):
    found = saved(tmp_path / "loop", 3, 7, 12, 100)
    assert found.steps() == [100, 12, 7]
    same(found.read(7))


def test_every_damaged_byte_of_the_arrays_is_noticed(tmp_path):
    found = saved(tmp_path / "loop", 1)
    path = max((tmp_path / "loop").rglob("*"), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    assert len(whole) > 500_000
    for place in range(100, len(whole), len(whole) // 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged"):
            unpacked(found.read(1))
    path.write_bytes(whole)
    same(found.read(1))


def test_those_of_another_run_are_refused(tmp_path):
    saved(tmp_path / "loop", 1)
    with pytest.raises(ValueError, match="step 1 belongs to another run"):
        Checkpoints(tmp_path / "loop", "other").read(1)


def test_a_save_that_fails_raises_and_leaves_those_before(tmp_path, monkeypatch):
    found = saved(tmp_path / "loop", 1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.mkdir", full)
        found.save(2, packed(ARRAYS))
        with pytest.raises(OSError, match="No space left"):
            found.close()
    again = Checkpoints(tmp_path / "loop", "m")
    assert again.steps() == [1]
    again.save(2, packed(ARRAYS))
    again.close()
    same(Checkpoints(tmp_path / "loop", "m").read(2))
