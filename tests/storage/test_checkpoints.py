# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: exact, bounded, and refused by name when damaged."""

import hashlib
import json
import shutil
import threading
from contextlib import suppress
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.storage import Saver, load_checkpoint, save_checkpoint, steps


class State(NamedTuple):
    params: dict
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array
    nothing: None


def state(scale=1.0):
    params = {"w": scale * jnp.arange(6.0).reshape(2, 3), "b/c": jnp.ones(3, jnp.bfloat16)}
    optimizer = optax.adam(0.1).init(params)
    return State(params, optimizer, jax.random.key(3), jnp.int32(7), None)


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(folder, 7, state(2.0), metadata={"loss": [1.5]})
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_comes_back_bit_for_bit(saved):
    checkpoint = load_checkpoint(saved, state())
    expected = state(2.0)
    assert jax.random.key_data(checkpoint.tree.key).tolist() == [0, 3]
    chex.assert_trees_all_equal(
        checkpoint.tree._replace(key=None), expected._replace(key=None), strict=True
    )
    assert (checkpoint.step, checkpoint.metadata, checkpoint.refused) == (7, {"loss": [1.5]}, ())


def test_shapes_are_enough_to_load(saved):
    checkpoint = load_checkpoint(saved, jax.eval_shape(state))
    chex.assert_trees_all_equal(checkpoint.tree.params, state(2.0).params)


def test_damage_to_any_file_is_refused_by_name(copy):
    files = all_files(copy)
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        for damaged in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="step_0000000007 is damaged"):
                load_checkpoint(copy, state())
        path.unlink()
        with pytest.raises(ValueError, match="step_0000000007 is damaged"):
            load_checkpoint(copy, state())
        path.write_bytes(content)
    assert load_checkpoint(copy, state()).step == 7


def test_damaged_leaf_is_named(copy):
    (path,) = copy.glob("step_*/arrays/params.w/0.0")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is damaged: leaf params\.w\."):
        load_checkpoint(copy, state())


def test_last_good_checkpoint_is_used_and_the_damaged_one_reported(copy):
    save_checkpoint(copy, 9, state(3.0))
    (copy / "step_0000000009" / "manifest.json").write_text("{}")
    checkpoint = load_checkpoint(copy, state())
    assert checkpoint.step == 7
    assert "step_0000000009 is damaged" in checkpoint.refused[0]
    with pytest.raises(ValueError, match="step_0000000009 is damaged"):
        load_checkpoint(copy, state(), step=9)


def test_foreign_trees_are_refused_by_leaf(saved):
    params = state().params
    for wrong, message in [
        (
            {**params, "w": jnp.ones((3, 2))},
            r"leaf params.w must be float64\[3, 2\], got float64\[",
        ),
        ({**params, "w": jnp.ones((2, 3), int)}, r"leaf params.w must be int64\[2, 3\], got float"),
        ({"w": params["w"]}, r"leaf params.b/c must be absent, got bfloat16\[3\]"),
        ({**params, "x": jnp.ones(1)}, r"leaf params.x must be float64\[1\], got absent"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_checkpoint(saved, state()._replace(params=wrong))


def test_only_the_newest_are_kept_and_leftovers_removed(tmp_path):
    (tmp_path / ".step_0000000001.abc").mkdir()
    for step in (1, 2, 3, 3):
        save_checkpoint(tmp_path, step, {"x": jnp.full(1, step)}, max_to_keep=2)
    assert steps(tmp_path) == [2, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"step_0000000002", "step_0000000003"}
    assert load_checkpoint(tmp_path, {"x": jnp.full(1, 0)}, step=2).tree["x"] == 2


def test_failed_save_leaves_the_earlier_checkpoint_alone(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"x": jnp.ones(1)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("plprune.storage.trees._write_arrays", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 1, {"x": jnp.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000000001"]
    assert load_checkpoint(tmp_path, {"x": jnp.ones(1)}).tree["x"] == 1


def test_rejects_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        save_checkpoint(tmp_path, -1, {})
    with pytest.raises(ValueError, match="max_to_keep must be at least 1, got 0"):
        save_checkpoint(tmp_path, 1, {}, max_to_keep=0)
    with pytest.raises(ValueError, match="distinct names"):
        save_checkpoint(tmp_path, 1, {"a.b": np.ones(1), "a": {"b": np.ones(1)}})
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_checkpoint(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_checkpoint(tmp_path, {}, step=3)


def test_saving_in_the_background_keeps_what_the_tree_was(tmp_path, monkeypatch):
    busy, write = threading.Event(), save_checkpoint

    def slow(*arguments, **options):
        busy.wait(10)
        write(*arguments, **options)

    monkeypatch.setattr("plprune.storage.checkpoints.save_checkpoint", slow)
    host, device = np.ones(3), jnp.ones(3)
    bump = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Saver(tmp_path, max_to_keep=2) as saver:
        saver.save(1, {"host": host, "device": device, "key": jax.random.key(2)})
        host += 1
        jax.block_until_ready(bump(device))
        assert steps(tmp_path) == []  # `save` has returned and nothing is on disk.
        busy.set()
        for step in (2, 3):
            saver.save(step, {"host": host, "device": host, "key": jax.random.key(2)})
            assert step - 1 in steps(tmp_path)  # One save at a time.
    assert steps(tmp_path) == [2, 3]
    saved = load_checkpoint(tmp_path, {"host": host, "device": host, "key": jax.random.key(0)})
    assert saved.tree["host"].tolist() == [2, 2, 2]


def test_what_went_wrong_in_the_background_is_raised_once(tmp_path):
    (tmp_path / "file").write_text("")
    saver = Saver(tmp_path / "file")
    saver.save(1, {"x": np.ones(1)})
    with pytest.raises(OSError, match="file"):
        saver.wait()
    saver.wait()
    with pytest.raises(OSError, match="file"), saver:
        saver.save(2, {"x": np.ones(1)})
    with suppress(KeyboardInterrupt), Saver(tmp_path / "file") as saver:
        saver.save(2, {"x": np.ones(1)})
        raise KeyboardInterrupt  # The block's own error wins.


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": np.ones(1)}, metadata={"run": "a"})
    save_checkpoint(tmp_path, 2, {"x": np.ones(1)}, metadata={"run": "b"})
    found = load_checkpoint(tmp_path, {"x": np.ones(1)}, metadata={"run": "a"})
    assert found.step == 1
    assert "step_0000000002 belongs to another run: run must be 'a'" in found.refused[0]
    (tmp_path / "step_0000000001").rename(tmp_path / "step_0000000003")
    with pytest.raises(ValueError, match="step_0000000003 must hold a checkpoint of step 3"):
        load_checkpoint(tmp_path, {"x": np.ones(1)}, step=3)


def forge(folder, change):
    """A manifest with matching sums, from whoever can compute SHA-256."""
    (path,) = folder.glob("step_*/manifest.json")
    content = change(json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("manifest.sha256").write_text(f"{digest}  manifest.json\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "[" * 100_000, "not one of ours"),
        (lambda _: [], "not one of ours"),
        (lambda _: {"format": 1}, "not one of ours"),
        (lambda m: m | {"format": [2]}, r"must have format 1, got \[2\]"),
        (lambda m: m | {"files": {"../../etc/passwd": 1}}, "not one of ours"),
        (lambda m: m | {"files": {**m["files"], "../x": "0"}}, r"file \.\./x"),
        (lambda m: m | {"random": {"no leaf": "rbg"}}, "not one of ours"),
        (lambda m: m | {"random": {"key": "rbg"}}, "is damaged"),
        (lambda m: m | {"random": {}}, "leaf key is"),
        (lambda m: m | {"leaves": {"a": 1}}, "not one of ours"),
        (lambda m: m | {"leaves": {}, "random": {}}, "must be .*, got absent"),
        (lambda m: m | {"metadata": []}, "something else"),
        (lambda m: {k: v for k, v in m.items() if k != "step"}, "something else"),
    ],
)
def test_forged_manifests_are_refused_in_words(copy, change, message):
    forge(copy, change)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(copy, state())


def test_links_out_of_a_checkpoint_are_refused(copy, tmp_path):
    (path,) = copy.glob("step_*/arrays/params.w/0.0")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")  # The same bytes, and yet.
    with pytest.raises(ValueError, match=r"is damaged: leaf params\.w\."):
        load_checkpoint(copy, state())


def test_names_of_leaves_stay_inside_the_folder(tmp_path):
    tree = {"..": np.ones(1), "../../out": np.ones(2), "/abs": np.ones(3), "": np.ones(4)}
    save_checkpoint(tmp_path / "in", 1, tree)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    arrays = tmp_path / "in" / "step_0000000001" / "arrays"
    assert len([path for path in arrays.iterdir() if path.is_dir()]) == 4
    found = load_checkpoint(tmp_path / "in", tree).tree
    assert {name: len(leaf) for name, leaf in found.items()} == {k: len(v) for k, v in tree.items()}


def test_empty_arrays_come_back_too(tmp_path):
    for tree in ({"none": np.zeros((0, 3), np.float32), "x": np.ones(2)}, {"none": np.zeros(0)}):
        save_checkpoint(tmp_path, 1, tree)
        chex.assert_trees_all_equal(load_checkpoint(tmp_path, tree).tree, tree)
