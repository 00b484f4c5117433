# SPDX-License-Identifier: Apache-2.0
"""A checkpoint cut on disk is what `shrink` makes in memory, whatever interrupts it."""

import json
import shutil
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from plprune.data.prepared import quiet
from plprune.functional import functional, stateless
from plprune.models import MLP
from plprune.nodes import find_nodes, shrink
from plprune.storage import abstract_checkpoint, shrink_checkpoint, shrinking
from plprune.storage.trees import file_sum
from plprune.storage.work import Work
from tests.devices import printed_on
from tests.storage.reading import restored, save, sums

pytestmark = pytest.mark.usefixtures("models_broadcast")
FORMATS = {
    "ocdbt": {},
    "folders": {"use_ocdbt": False},
    "zarr3": {"use_zarr3": True},
    "zarr3 folders": {"use_zarr3": True, "use_ocdbt": False},
}
KEEP = {"hidden": np.arange(9) % 3 != 1, "hidden_2": np.arange(6) < 2}


def apply(params, inputs):
    hidden = jnp.tanh(inputs @ params["hidden"]["w"] + params["hidden"]["b"].astype(jnp.float32))
    for layer in params["layers"]:
        hidden = jnp.tanh(hidden @ layer)
    return hidden


def state(seed=0):
    """Parameters, of two types, and Adam's moments of them."""
    rng = np.random.default_rng(seed)

    def normal(*shape, dtype=jnp.float32):
        return jnp.asarray(rng.normal(size=shape), dtype)

    params = {
        "hidden": {"w": normal(4, 9), "b": normal(9, dtype=jnp.bfloat16)},
        "layers": [normal(9, 6), normal(6, 3)],
    }
    moments = jax.tree.map(lambda x: x + 1, optax.adam(1e-3).init(params))
    return {"params": params, "opt": moments, "step": jnp.asarray(7)}


@pytest.fixture(scope="module")
def groups():
    with jax.numpy_rank_promotion("allow"):
        found = find_nodes(apply, state()["params"], jnp.ones((2, 4), jnp.float32))
    assert list(found.prunable.values()) == [9, 6]
    return found


@pytest.fixture(scope="module")
def keep(groups):
    return dict(zip(groups.prunable, KEEP.values(), strict=True))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save(tmp_path_factory.mktemp("source") / "saved", state(), chunk_bytes=40)


@pytest.fixture(scope="module")
def expected(groups, keep, tmp_path_factory):
    """What orbax reads back of the tree that was cut in memory."""
    small = shrink(state(), groups, keep)
    return restored(save(tmp_path_factory.mktemp("expected") / "saved", small))


def check_equal(path, expected):
    found = restored(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)
def test_it_is_what_shrink_makes_byte_for_byte(tmp_path, groups, keep, expected, options):
    path = save(tmp_path / "saved", state(), chunk_bytes=40, **options)
    before = sums(path)
    for read_bytes in (1, 2**26):
        target = tmp_path / f"small_{read_bytes}"
        done = shrink_checkpoint(path, target, groups, keep, read_bytes=read_bytes)
        check_equal(target, expected)
        assert done.cut == 12
        assert done.bytes_after == sum(array.nbytes for array in expected.values())
    assert sums(path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "small_1", f"small_{2**26}"}


def test_the_manifest_has_a_sum_of_every_file_and_what_was_kept(tmp_path, groups, keep, source):
    target = tmp_path / "small"
    shrink_checkpoint(source, target, groups, keep)
    manifest = json.loads((target / "manifest.json").read_text())
    files = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert manifest["files"].keys() == files - {"manifest.json", "manifest.sha256"}
    assert all(file_sum(target / name) == total for name, total in manifest["files"].items())
    assert manifest["keep"][next(iter(keep))] == "101101101"


class Killed(BaseException):
    """As a signal would, it passes by whoever handles errors."""


@contextmanager
def killed_at(monkeypatch, moment):
    """Within, the given one of the moments at which something is written is the last."""
    left = [moment]

    def failing(function, after):
        def wrapped(*args, **kwargs):
            if after:
                function(*args, **kwargs)
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            if not after:
                function(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(shrinking, "copy_positions", failing(shrinking.copy_positions, False))
        patch.setattr(Work, "mark", failing(Work.mark, False))
        patch.setattr(Work, "finish", failing(Work.finish, False))
        patch.setattr(shutil, "copyfile", failing(shutil.copyfile, True))
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize("options", [{}, {"use_ocdbt": False}], ids=["ocdbt", "folders"])
def test_whatever_was_interrupted_goes_on(tmp_path, monkeypatch, groups, keep, expected, options):
    path, target = save(tmp_path / "saved", state(), **options), tmp_path / "small"
    before = sums(path)
    # Each array takes two moments; later runs find more and more done, the last one everything.
    for moment in (0, 1, 2, 5, 9, 3, 10, 1, 0, 2):
        with killed_at(monkeypatch, moment):
            shrink_checkpoint(path, target, groups, keep)
        assert not target.exists()
    written = []
    copy = shrinking.copy_positions
    monkeypatch.setattr(shrinking, "copy_positions", lambda *a: (written.append(1), copy(*a)))
    shrink_checkpoint(path, target, groups, keep)
    assert not written
    check_equal(target, expected)
    assert sums(path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "small"}
    shrink_checkpoint(path, target, groups, keep)  # Nothing is left to do.


def test_what_another_call_left_is_thrown_away(tmp_path, monkeypatch, groups, keep, source):
    target, other = tmp_path / "small", {name: np.arange(len(k)) > 0 for name, k in keep.items()}
    with killed_at(monkeypatch, 9):
        shrink_checkpoint(source, target, groups, keep)
    shrink_checkpoint(source, target, groups, other)
    assert restored(target)["params.layers.0"].shape == (8, 5)
    with pytest.raises(ValueError, match="target must not exist"):
        shrink_checkpoint(source, target, groups, keep)


def test_items_of_a_step_are_cut_each_and_other_files_are_copied(tmp_path, groups, keep, expected):
    saved = state()
    with quiet(), ocp.CheckpointManager(tmp_path / "run") as manager:
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(saved["params"]),
            opt=ocp.args.StandardSave(saved["opt"]),
            notes=ocp.args.JsonSave({"epoch": 3}),
        )
        manager.save(4, args=args)
        manager.wait_until_finished()
    shrink_checkpoint(tmp_path / "run" / "4", tmp_path / "small" / "4", groups, keep)
    with quiet(), ocp.CheckpointManager(tmp_path / "small") as manager:
        wanted = ocp.args.Composite(params=ocp.args.StandardRestore(), notes=ocp.args.JsonRestore())
        read = manager.restore(4, args=wanted)
    assert read["notes"] == {"epoch": 3}
    assert np.array_equal(read["params"]["hidden"]["w"], expected["params.hidden.w"])
    moments = restored(tmp_path / "small" / "4" / "opt")
    assert np.array_equal(moments["0.mu.layers.0"], expected["opt.0.mu.layers.0"])


def test_a_module_and_its_optimiser_are_planned_and_cut_without_weights(tmp_path):
    def make():
        return MLP(4, (6,), 2, rngs=nnx.Rngs(0))

    model = make()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    saved = {"model": nnx.state(model, nnx.Param), "optimizer": nnx.state(optimizer)}
    path = save(tmp_path / "saved", saved)
    parts = functional(nnx.eval_shape(make))
    shapes = abstract_checkpoint(path)["model"]
    assert jax.tree.structure(shapes) == jax.tree.structure(parts.params)
    inputs = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    groups = find_nodes(stateless(parts), shapes, inputs)
    keep = {"hidden_0": np.arange(6) % 2 == 0}
    shrink_checkpoint(path, tmp_path / "small", groups, keep)
    small = restored(tmp_path / "small")
    assert small["optimizer.opt_state.0.mu.hidden_0.kernel.value"].shape == (4, 3)
    whole = np.asarray(model.hidden_0.kernel[...])
    assert np.array_equal(small["model.hidden_0.kernel.value"], whole[:, ::2])


_SHARDED = """
import tempfile
from pathlib import Path

import jax, numpy as np
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec as P

import plprune

mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
params = {"w": jax.device_put(np.ones((4, 12)), NamedSharding(mesh, P("x", "y"))),
          "v": jax.device_put(np.ones((12, 2)), NamedSharding(mesh, P(("x", "y"), None)))}
groups = plprune.find_nodes(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((2, 4)))
folder = Path(tempfile.mkdtemp())
checkpointer = ocp.PyTreeCheckpointer()
checkpointer.save(folder / "saved", params)
(name,) = groups.prunable
for count in (8, 6, 5):
    keep = {name: np.arange(12) < count}
    plprune.shrink_checkpoint(folder / "saved", folder / str(count), groups, keep)
    small, read = plprune.shrink(params, groups, keep), checkpointer.restore(folder / str(count))
    print(all(read[k].sharding.is_equivalent_to(small[k].sharding, 2) for k in small),
          [s.data.shape for s in read["v"].addressable_shards][0])
"""


def test_shardings_are_kept_where_devices_divide_the_new_size():
    printed = printed_on(4, _SHARDED).splitlines()
    assert printed == ["True (2, 2)", "True (6, 2)", "True (5, 2)"]


def test_bad_input_is_refused_before_anything_is_written(tmp_path, groups, keep, source):
    target = tmp_path / "small"

    def refused(match, *args, error=ValueError, **options):
        with pytest.raises(error, match=match):
            shrink_checkpoint(*args, **options)
        assert not list(tmp_path.glob(".*"))

    refused("no checkpoint", tmp_path / "none", target, groups, keep, error=FileNotFoundError)
    (tmp_path / "empty").mkdir()
    refused("no _METADATA", tmp_path / "empty", target, groups, keep)
    refused("must not lie in the source", source, source / "small", groups, keep)
    refused(
        "must keep at least one", source, target, groups, {n: k & False for n, k in keep.items()}
    )
    refused("keep names", source, target, groups, {"other": np.ones(3, bool)})
    refused("read_bytes must be at least 1", source, target, groups, keep, read_bytes=0)
    wide = state() | {
        "params": {
            "hidden": {"w": jnp.ones((4, 8)), "b": jnp.ones(9)},
            "layers": [jnp.ones((9, 6)), jnp.ones((6, 3))],
        }
    }
    refused("hidden.w must have shape", save(tmp_path / "wide", wide), target, groups, keep)
    fewer = {"hidden": state()["params"]["hidden"]}
    refused("layers.0 is missing", save(tmp_path / "fewer", fewer), target, groups, keep)
    target.mkdir()
    refused("target must not exist", source, target, groups, keep)
