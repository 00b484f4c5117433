# SPDX-License-Identifier: Apache-2.0
"""Files of safetensors cut as `shrink` cuts their arrays."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.flax import load_file, save_file

from plprune.nodes import find_nodes, shrink
from plprune.storage import shrink_checkpoint, tensors
from tests.storage.reading import sums

pytestmark = pytest.mark.usefixtures("models_broadcast")


def apply(params, inputs):
    """With weights [out, in], as torch has them."""
    hidden = jnp.tanh(inputs @ params["up"]["weight"].T + params["up"]["bias"].astype(jnp.float32))
    return hidden @ params["down"]["weight"].T


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    params = {
        "up": {
            "weight": jnp.asarray(rng.normal(size=(9, 4)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=9), jnp.bfloat16),
        },
        "down": {"weight": jnp.asarray(rng.normal(size=(3, 9)), jnp.float32)},
        "count": jnp.asarray(5, jnp.int32),
    }
    with jax.numpy_rank_promotion("allow"):
        groups = find_nodes(apply, params, jnp.ones((2, 4), jnp.float32))
    return params, groups, {"up": np.arange(9) % 2 == 0}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="."): x for k, x in leaves}


def check_equal(file, expected):
    found = load_file(file)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.asarray(found[name]).tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("read_bytes", [1, 40, 2**26])
def test_a_file_is_cut_byte_for_byte(tmp_path, model, read_bytes):
    params, groups, keep = model
    save_file(flat(params), tmp_path / "model.safetensors", {"format": "flax"})
    source = tmp_path / "model.safetensors"
    before = source.read_bytes()
    done = shrink_checkpoint(source, tmp_path / "small", groups, keep, read_bytes=read_bytes)
    check_equal(tmp_path / "small" / source.name, flat(shrink(params, groups, keep)))
    with safe_open(tmp_path / "small" / source.name, "numpy") as file:
        assert file.metadata() == {"format": "flax"}
    assert (done.arrays, done.cut) == (4, 3)
    assert source.read_bytes() == before


def test_several_files_with_an_index_are_cut_each(tmp_path, model):
    params, groups, keep = model
    whole = flat(params)
    names = {name: f"model-{k}.safetensors" for k, name in enumerate(sorted(whole))}
    (tmp_path / "saved").mkdir()
    for name, file in names.items():
        save_file({name: whole[name]}, tmp_path / "saved" / file)
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (tmp_path / "saved" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "saved" / "config.json").write_text("{}")
    before = sums(tmp_path / "saved")
    done = shrink_checkpoint(tmp_path / "saved", tmp_path / "small", groups, keep)
    small = flat(shrink(params, groups, keep))
    for name, file in names.items():
        check_equal(tmp_path / "small" / file, {name: small[name]})
    written = json.loads((tmp_path / "small" / "model.safetensors.index.json").read_text())
    assert written["weight_map"] == names
    assert written["metadata"]["total_size"] == done.bytes_after
    assert (tmp_path / "small" / "config.json").read_text() == "{}"
    assert sums(tmp_path / "saved") == before


def test_an_interrupted_file_goes_on(tmp_path, model, monkeypatch):
    params, groups, keep = model
    source = tmp_path / "model.safetensors"
    save_file(flat(params), source)
    rows, left = tensors._rows, [2]

    def failing(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        yield from rows(*args)

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "_rows", failing)
        with pytest.raises(KeyboardInterrupt):
            shrink_checkpoint(source, tmp_path / "small", groups, keep)
    assert not (tmp_path / "small").exists()
    left[0] = 2  # Two of the four are done.
    monkeypatch.setattr(tensors, "_rows", failing)
    shrink_checkpoint(source, tmp_path / "small", groups, keep)
    check_equal(tmp_path / "small" / source.name, flat(shrink(params, groups, keep)))
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "small"}


def test_damage_and_names_that_are_no_tree_are_refused(tmp_path, model):
    params, groups, keep = model
    source = tmp_path / "model.safetensors"
    save_file(flat(params), source)
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        shrink_checkpoint(source, tmp_path / "small", groups, keep)
    for names in (["up", "up.weight"], ["up.weight", "up"]):
        save_file({name: jnp.ones(2) for name in names}, source)
        with pytest.raises(ValueError, match=r"must (not )?be.* name of"):
            shrink_checkpoint(source, tmp_path / "small", groups, keep)
    save_file({"up.weight": jnp.ones((9, 4))}, source)
    with pytest.raises(ValueError, match="is missing"):
        shrink_checkpoint(source, tmp_path / "small", groups, keep)
