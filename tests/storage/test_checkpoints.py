"""Checkpoints: exact, bounded, and refused by name when damaged."""

import shutil
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.storage import load_checkpoint, save_checkpoint, steps


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
