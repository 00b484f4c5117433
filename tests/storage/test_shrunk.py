# SPDX-License-Identifier: Apache-2.0
"""Shrunk models on disk: the same function again, or refused by name."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.functional import functional, stateless
from plprune.models import MLP
from plprune.nodes import find_nodes, resize, shrink
from plprune.storage import load_shrunk, save_checkpoint, save_shrunk

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def constructor(width=5):
    """The original model and its groups, from shapes alone."""
    model = functional(nnx.eval_shape(lambda: MLP(4, (width, 6), 2, rngs=nnx.Rngs(0))))
    apply = stateless(model)
    inputs = jax.ShapeDtypeStruct(INPUTS.shape, INPUTS.dtype)
    with jax.numpy_rank_promotion("allow"):
        return apply, model.params, find_nodes(apply, model.params, inputs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    _, shapes, groups = constructor()
    params = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype).cumsum(0), shapes)
    open_groups = {name: group for name, group in groups.items() if group.prunable}
    keep = {name: np.arange(group.size) % 3 > 0 for name, group in open_groups.items()}
    small = shrink(params, groups, keep)
    save_shrunk(path, small, keep)
    return path, small, keep


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved[0], tmp_path / "copy")


def test_constructor_and_file_give_the_same_function(saved):
    path, small, keep = saved
    apply, shapes, groups = constructor()
    loaded = load_shrunk(path, shapes, groups)
    chex.assert_trees_all_equal(loaded.tree, small, strict=True)
    chex.assert_trees_all_equal(loaded.keep, keep)
    assert loaded.tree["hidden_0"]["kernel"].shape == (4, 3)
    outputs = resize(apply, groups, loaded.keep)(loaded.tree, INPUTS)
    assert outputs.shape == (3, 2)


def test_damaged_leaf_is_named(copy):
    _, shapes, groups = constructor()
    (path,) = copy.glob("arrays/hidden_1.kernel/0.0")
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"copy is damaged: leaf hidden_1\.kernel\."):
        load_shrunk(copy, shapes, groups)


def test_flipped_bit_of_what_was_kept_is_refused(copy):
    _, shapes, groups = constructor()
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"01101"', '"11001"'))
    with pytest.raises(ValueError, match=r"manifest\.json does not match its sum"):
        load_shrunk(copy, shapes, groups)


def test_another_constructor_is_refused_by_group_or_leaf(saved):
    _, shapes, groups = constructor(width=7)
    with pytest.raises(ValueError, match=r"group hidden_0 must have 7 nodes, got 5"):
        load_shrunk(saved[0], shapes, groups)
    _, shapes, groups = constructor()
    double = {**shapes, "output": {**shapes["output"], "bias": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"leaf output\.bias must be float64\[2\], got float32\[2"):
        load_shrunk(saved[0], double, groups)


def test_rejects_other_folders_and_bad_arguments(saved, tmp_path):
    path, small, keep = saved
    _, shapes, groups = constructor()
    with pytest.raises(ValueError, match="exists; pass overwrite=True"):
        save_shrunk(path, small, keep)
    with pytest.raises(ValueError, match=r"keep\['a'\] must hold booleans, or exact 0 and 1"):
        save_shrunk(tmp_path / "new", small, {"a": np.arange(3)})
    with pytest.raises(ValueError, match=r"keep\['a'\] must have shape \(3,\), got \(3, 1\)"):
        save_shrunk(tmp_path / "new", small, {"a": np.ones((3, 1), bool)})
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_shrunk(tmp_path / "new", shapes, groups)
    save_checkpoint(tmp_path, 0, small)
    with pytest.raises(ValueError, match="must hold a shrunk model"):
        load_shrunk(tmp_path / "step_0000000000", shapes, groups)


def test_overwriting_replaces_the_whole_folder(copy, saved):
    _, small, keep = saved
    (copy / "stray").write_text("")
    save_shrunk(copy, small, keep, overwrite=True)
    _, shapes, groups = constructor()
    chex.assert_trees_all_equal(load_shrunk(copy, shapes, groups).tree, small)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
