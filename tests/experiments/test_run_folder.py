# SPDX-License-Identifier: Apache-2.0
"""What an interrupted run leaves behind: found again, or refused, never trusted."""

import json
import os
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from experiments.run_folder import STATE, RunFolder, clear, normalised

HEADER = {"experiment": "toy", "preset": "quick", "config": {"k": 1}, "versions": {"jax": "1"}}


@contextmanager
def begin(folder, header=HEADER, tell=pytest.fail, **options):
    """What is kept of a run in `folder`."""
    with RunFolder(folder, header, **({"resume": True} | options)).under_way(tell) as run:
        yield run.kept


def must_run(folder, header, **options):
    return RunFolder(folder, header, **options).must_run()


def interrupt(folder, pieces):
    with suppress(KeyboardInterrupt), begin(folder) as kept:
        for name, value in pieces.items():
            kept.once(name, lambda value=value: {"x": value})
        raise KeyboardInterrupt


def test_finished_pieces_are_not_done_again_and_keep_every_bit(tmp_path):
    value = np.array([1.0, -0.0, np.nan], np.float32)
    interrupt(tmp_path, {"gd/../a": value, "b": None})
    with begin(tmp_path) as kept:
        for name, expected in (("gd/../a", value), ("b", np.array(np.nan))):
            found = kept.once(name, lambda: pytest.fail("done already"))["x"]
            assert found.tobytes() == expected.tobytes()
            assert found.dtype == expected.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_fresh_piece_is_the_same_as_one_that_was_read_back(tmp_path):
    with suppress(KeyboardInterrupt), begin(tmp_path) as kept:
        fresh = kept.once("a", lambda: {"x": 1.5, "n": 3})
        raise KeyboardInterrupt
    with begin(tmp_path) as kept:
        again = kept.once("a", lambda: pytest.fail("done already"))
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in fresh.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in again.items()
    }


def test_every_damaged_byte_of_a_piece_is_noticed_and_the_piece_done_again(tmp_path):
    interrupt(tmp_path, {"a": 1.0})
    (path,) = (tmp_path / "unfinished").glob("*.npz")
    whole, noticed = path.read_bytes(), 0
    for place in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        told = []
        with suppress(KeyboardInterrupt), begin(tmp_path, tell=told.append) as kept:
            found = kept.once("a", lambda: {"x": 2.0})["x"]
            raise KeyboardInterrupt
        # A date in the archive may change, a number may not.
        assert found == (2.0 if told else 1.0)
        noticed += len(told)
        if not told:
            continue
        assert "a is done again" in told[0]
    assert noticed > len(range(0, len(whole), 11)) / 2


def test_a_full_disk_loses_nothing_that_was_saved(tmp_path, monkeypatch):
    interrupt(tmp_path, {"a": 1.0})

    def full(_):
        raise OSError(28, "No space left on device")

    with suppress(KeyboardInterrupt), begin(tmp_path) as kept:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            kept.once("b", lambda: {"x": 2.0})
        raise KeyboardInterrupt
    monkeypatch.undo()
    with begin(tmp_path) as kept:
        assert kept.once("a", lambda: pytest.fail("done already"))["x"] == 1.0


def test_an_unfinished_run_of_another_config_or_version_is_refused(tmp_path):
    interrupt(tmp_path, {})
    for change, word in (({"config": {"k": 2}}, "k is 1"), ({"versions": {"jax": "2"}}, "jax")):
        with pytest.raises(ValueError, match=word):
            must_run(tmp_path, HEADER | change, resume=True, overwrite=False)
    assert must_run(tmp_path, HEADER, resume=True, overwrite=False)


def test_resuming_at_another_commit_is_told(tmp_path):
    interrupt(tmp_path, {})
    told = []
    with begin(tmp_path, HEADER | {"commit": "abc"}, told.append):
        pass
    assert told == ["This run was begun at commit None and is continued at abc."]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"experiment": 1}', b"\xff"])
def test_a_damaged_header_is_refused_by_name(tmp_path, content):
    interrupt(tmp_path, {})
    (tmp_path / "unfinished" / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        must_run(tmp_path, HEADER, resume=True, overwrite=False)
    assert must_run(tmp_path, HEADER, resume=False, overwrite=True)


def test_two_processes_cannot_run_in_one_folder(tmp_path):
    with begin(tmp_path), pytest.raises(ValueError, match="another process"), begin(tmp_path):
        pass


def test_overwriting_forgets_the_pieces(tmp_path):
    interrupt(tmp_path, {"a": 1.0})
    with begin(tmp_path, overwrite=True) as kept:
        assert kept.once("a", lambda: {"x": 2.0})["x"] == 2.0


def test_forgetting_follows_no_link(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "unfinished").symlink_to(tmp_path / "mine")
    clear(tmp_path / "run", STATE)
    assert (tmp_path / "mine" / "x").exists()


def test_pieces_of_another_config_are_never_used(tmp_path):
    interrupt(tmp_path, {"a": 1.0})
    (tmp_path / "unfinished" / "run.json").unlink()  # As if killed while the state was removed.
    (tmp_path / "log.jsonl").unlink()
    other = HEADER | {"config": {"k": 2}}
    assert must_run(tmp_path, other, resume=False, overwrite=False)
    with begin(tmp_path, other) as kept:
        assert kept.once("a", lambda: {"x": 2.0})["x"] == 2.0


def test_litter_of_a_killed_process_is_swept(tmp_path):
    (tmp_path / ".record.json.4711").write_text("half")
    (tmp_path / ".lock").write_text("")
    with begin(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_config_that_json_cannot_hold_is_refused():
    assert normalised({"a": (1, 2)}) == {"a": [1, 2]} == json.loads('{"a": [1, 2]}')
    with pytest.raises(ValueError, match="JSON"):
        normalised({"a": float("inf")})
