# SPDX-License-Identifier: Apache-2.0
"""Groups are right or refused: removing nodes equals masking them, for every kind of function."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found, masked_function, random_keep, shaped, shrunk_output
from zoo import CASES, TWO, conv, lstm_scanned, normal, shapes, transformer

from plprune.costs import parameters
from plprune.functional import functional, paired
from plprune.models import ResNet
from plprune.nodes import expand, find_nodes, mask, resize, shrink


@pytest.mark.parametrize("name", CASES)
def test_the_expected_groups_are_prunable(name):
    assert found(name).prunable == CASES[name].groups


@pytest.mark.parametrize("name", CASES)
def test_removing_nodes_of_all_groups_equals_masking_them(name):
    groups = found(name)
    keep = random_keep(groups)
    masked = masked_function(name)(keep)
    scale = jnp.abs(masked).max()
    np.testing.assert_allclose(shrunk_output(name, keep), masked, atol=1e-12 * scale, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_masking_any_group_changes_the_function(name):
    groups = found(name)
    everything = {n: np.ones(size, bool) for n, size in groups.prunable.items()}
    full = masked_function(name)(everything)
    for n, size in groups.prunable.items():
        closed = masked_function(name)({**everything, n: np.arange(size) == 0})
        assert jnp.abs(closed - full).max() > 1e-6, n


@pytest.mark.parametrize("name", ["lstm, scanned", "switch"])
def test_single_nodes_and_all_but_one_can_go(name):
    groups = found(name)
    for n, size in groups.prunable.items():
        for kept in (np.arange(size) != size // 2, np.arange(size) == size // 2):
            keep = {m: np.ones(s, bool) for m, s in groups.prunable.items()} | {n: kept}
            masked = masked_function(name)(keep)
            np.testing.assert_allclose(shrunk_output(name, keep), masked, atol=1e-11)


def test_groups_are_named_by_module_and_say_what_they_are():
    kinds = {name: group.kind for name, group in found("transformer, baked").items()}
    assert kinds["attention"] == "head"
    assert kinds["attention.residual_streams"] == "residual stream"
    assert kinds["up"] == "neuron"
    assert found("resnet")["a1"].kind == "channel"
    assert found("resnet")["stem"].kind == "residual stream"
    assert found("switch")["router"].kind == "expert"
    assert list(found("mlp")) == ["0.inputs", "0", "1", "2"]


def test_members_hold_every_slice_of_a_node():
    group = found("mlp")["0"]
    members = {(m.path, m.axis): m.index.tolist() for m in group.members}
    every = list(range(8))
    assert members == {("0.0", 1): every, ("0.1", 0): every, ("1.0", 0): every}
    assert [(m.path, m.axis) for m in group.consumers] == [("1.0", 0)]
    assert [(m.path, m.axis) for m in group.producers] == [("0.0", 1), ("0.1", 0)]
    flattened = next(m for m in found("cnn, flattened")["k2"].members if m.path == "w")
    assert flattened.index.tolist() == list(range(4))  # One position of 1 x 1 x 4.
    gates = next(m for m in found("lstm")["wx"].members if m.path == "b")
    assert gates.index.tolist() == [*range(6)] * 4


def test_the_table_has_a_line_per_group_with_members_or_the_reason():
    lines = str(found("mlp")).splitlines()
    assert lines[0].split()[:5] == ["group", "nodes", "kind", "prune", "gate"]
    assert lines[2].split() == ["0", "8", "neuron", "yes", "yes", "0.0[1],", "0.1[0],", "1.0[0]"]
    assert "an axis of the function's output" in lines[-1]


def test_shapes_are_enough_and_the_batch_size_does_not_matter():
    case = CASES["resnet"]
    shaped = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), case.params)
    images = jax.ShapeDtypeStruct((64, 6, 6, 3), jnp.float64)
    other = find_nodes(case.apply, shaped, images)
    assert str(other) == str(found("resnet"))


def sorted_nodes(p, x):
    return jnp.sort(x @ p["w"], -1) @ p["o"]


def transformed(p, x):
    return jnp.fft.fft(x @ p["w"]).real @ p["o"]


def repeated(p, x):
    def step(state):
        return state[0] + 1, jnp.cumsum(state[1], 1)

    return jax.lax.while_loop(lambda s: s[0] < 3, step, (0, x @ p["w"]))[1] @ p["o"]


def running(p, x):
    return jnp.cumsum(x @ p["w"], -1) @ p["o"]


def compared(p, x):
    return (x @ p["w"]).max(-1, keepdims=True) * p["o"][:1]


def logged(p, x):
    return jnp.log(x @ p["w"] + p["b"]).sum(-1, keepdims=True) * p["o"][:1]


def shifted(p, x):
    return jnp.exp(x @ p["w"]).sum(-1, keepdims=True) * p["o"][:1]


def indexed(p, x):
    return (x @ p["w"])[:, jnp.argsort(x[0])] @ p["o"][:5]


def beyond(p, x):
    return jnp.take(x @ p["w"], np.array([0, 6]), axis=1) @ p["o"][:2]


REFUSALS = {
    "sort": (sorted_nodes, TWO, "w", "sort at .*test_discovery.py.* reorders it"),
    "no rule": (
        lambda p, x: jax.lax.linalg.lu(x @ p["w"])[0] @ p["o"],
        TWO,
        "w",
        "no rule for lu at .*test_discovery.py.*; rewrite it",
    ),
    "fft": (transformed, TWO, "w", "fft at .*test_discovery.py.* transforms it"),
    "while": (repeated, TWO, "w", "cumsum at .*test_discovery.py.* runs along it"),
    "cumsum": (running, TWO, "w", "cumsum at .* runs along it"),
    "max": (
        compared,
        TWO,
        "w",
        "reduce_max at .*test_discovery.*minus infinity there, which only a bias",
    ),
    "log": (logged, TWO, "w", "divide by zero.* in log at .*test_discovery.py"),
    "mean": (
        lambda p, x: jnp.tanh(x @ p["w"]).mean(1, keepdims=True) * p["o"][:1],
        TWO,
        "w",
        'reduce_sum at .*; mode="baked" keeps that width',
    ),
    "sum of ones": (shifted, TWO, "w", "reduce_sum at .*entries of a closed node are not zero"),
    "last column": (
        lambda p, x: (x @ p["w"])[:, -1:],
        TWO,
        "w.neurons",
        "slice at .* picks this one",
    ),
    "lookup": (indexed, TWO, "w", "gather at .* looks up positions of it"),
    "beyond the end": (beyond, TWO, "w", "gather at .* looks up positions of it"),
    "output": (lambda p, x: x @ p["w"], TWO, "w", "an axis of the function's output"),
    "inputs": (lambda p, x: x @ p["w"], TWO, "w.inputs", "an axis of the inputs"),
    "unused": (lambda p, x: x @ p["w"], TWO, "o", "the function does not use o"),
    "one node": (
        lambda p, x: jnp.maximum(x @ p["w"], x @ p["w"][:, ::-1]) @ p["o"],
        shapes(w=(5, 2), o=(2, 3)),
        "w",
        "every position of o.0. belongs to the same node",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_primitive_the_line_and_the_way_out(name):
    function, params, group, reason = REFUSALS[name]
    groups = find_nodes(function, params, normal(4, 5))
    assert not groups[group].prunable
    assert not groups[group].gateable
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(groups[group].reason)


def test_baked_mode_still_refuses_sums_of_entries_that_are_not_zero():
    groups = find_nodes(shifted, TWO, normal(4, 5), mode="baked")
    assert "reduce_sum" in groups["w"].reason
    assert "not zero" in groups["w"].reason


def test_one_refused_group_does_not_spoil_the_others():
    def function(p, x):
        x = jnp.sort(jax.nn.relu(x @ p["a"]), -1)
        return jnp.tanh(x @ p["b"]) @ p["c"]

    groups = find_nodes(function, shapes(a=(5, 6), b=(6, 7), c=(7, 2)), normal(4, 5))
    assert groups.prunable == {"b": 7}


def test_statistics_of_training_mode_pin_only_what_they_touch():
    def train(p, x):
        h = conv(x, p["a"])
        mean = h.mean((0, 1, 2))
        h = conv(jax.nn.relu(h - mean), p["b"])
        return conv(jnp.tanh(h), p["c"]), mean

    params = shapes(a=(3, 3, 3, 5), b=(3, 3, 5, 4), c=(3, 3, 4, 2))
    groups = find_nodes(train, params, normal(2, 6, 6, 3))
    assert groups.prunable == {"b": 4}
    assert "output" in groups["a"].reason


def test_a_relu_in_front_of_a_maximum_makes_zero_neutral():
    def function(p, x):
        h = jax.nn.relu(x @ p["w"] + p["b"])
        return jnp.concatenate([h.max(-1, keepdims=True), h @ p["o"]], -1) @ p["out"]

    params = shapes(w=(5, 6), b=(6,), o=(6, 2), out=(3, 2))
    assert "w" in find_nodes(function, params, normal(4, 5)).prunable
    signed = lambda p, x: function({**p, "w": p["w"] - 1}, x)  # noqa: E731
    assert "w" not in find_nodes(signed, params, normal(4, 5)).prunable


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode must be one of \('strict', 'baked'\), got 'loose'"):
        find_nodes(
            transformer, CASES["transformer"].params, CASES["transformer"].inputs, mode="loose"
        )


def test_other_lengths_have_the_same_groups():
    case = CASES["lstm, scanned"]
    assert str(find_nodes(lstm_scanned, case.params, normal(7, 9, 5))) == str(
        found("lstm, scanned")
    )


def test_half_of_resnet20_is_found_within_a_second():
    """The counts are those of Torch-Pruning for the same network [Fang 2023]."""
    parts = functional(shaped(lambda rngs: ResNet(rngs=rngs)))
    images, variables = jnp.zeros((1, 32, 32, 3)), (parts.params, parts.state)
    start = time.process_time()  # Of this process alone: the machine may be busy.
    groups = find_nodes(paired(parts), variables, images)
    assert time.process_time() - start < 1
    keep = {name: np.arange(size) % 2 == 0 for name, size in groups.prunable.items()}
    assert parameters(parts.params) == 272_474
    small = jax.eval_shape(lambda tree: shrink(tree, groups, keep), parts.params)
    assert parameters(small) == 68_786


def adapted(p, x):
    return jnp.tanh(x @ (p["a"] + p["u"] @ p["v"])) @ p["b"]


def plain(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"]


def joined(p, x):
    return jnp.concatenate([jnp.tanh(x @ p["a"]), jnp.tanh(x @ p["e"])], -1) @ p["b"]


def stepped(p, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ p["a"], p["w"])[0] @ p["b"]


EMPTY = {
    "an adapter of rank 0": (adapted, {"u": (3, 0), "v": (0, 6)}, (8, 3), {"v": 6}),
    "an unused leaf": (plain, {"e": (0, 3)}, (8, 3), {"a": 6}),
    "inputs without features": (plain, {"a": (0, 6)}, (8, 0), {"a": 6}),
    "no outputs": (plain, {"b": (6, 0)}, (8, 3), {"a": 6}),
    "no hidden units": (plain, {"a": (3, 0), "b": (0, 2)}, (8, 3), {}),
    "an empty branch": (joined, {"e": (3, 0)}, (8, 3), {"a": 6}),
    "no layers": (stepped, {"w": (0, 6, 6)}, (8, 3), {"a": 6}),
    "no examples": (plain, {}, (0, 3), {"a": 6}),
    "no positions": (plain, {}, (8, 0, 3), {"a": 6}),
    "one unit": (plain, {"a": (3, 1), "b": (1, 2)}, (8, 3), {}),
    "one of everything": (plain, {"a": (1, 1), "b": (1, 1)}, (1, 1), {}),
}


@pytest.mark.parametrize("name", EMPTY)
def test_axes_of_no_size_hold_no_nodes(name):
    apply, leaves, inputs, prunable = EMPTY[name]
    params, x = shapes(**({"a": (3, 6), "b": (6, 2)} | leaves)), normal(*inputs)
    groups = find_nodes(apply, params, x)
    assert groups.prunable == prunable
    keep = random_keep(groups)
    small = shrink(params, groups, keep)
    shrunk, masked = resize(apply, groups, keep)(small, x), apply(mask(params, groups, keep), x)
    np.testing.assert_allclose(shrunk, masked, atol=1e-12)
    back = shrink(expand(small, groups, keep), groups, keep)
    assert jax.tree.map(np.array_equal, back, small) == jax.tree.map(lambda _: True, small)


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def devices_asked_for():
    """The default device while `find_nodes` runs the function."""
    seen = []

    def apply(params, inputs):
        seen.append(jax.config.jax_default_device)
        return jnp.tanh(inputs @ params["a"]) @ params["b"]

    groups = find_nodes(apply, {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}, jnp.ones((2, 3)))
    assert dict(groups.prunable) == {"a": 4}
    return set(seen)


@pytest.mark.usefixtures("accelerator")
def test_beside_an_accelerator_groups_are_found_on_the_host():
    assert devices_asked_for() == {jax.local_devices(backend="cpu")[0]}
    assert jax.config.jax_default_device is None


def test_on_a_cpu_no_device_is_set():
    assert devices_asked_for() == {None}


@pytest.mark.usefixtures("accelerator")
def test_without_a_cpu_groups_are_found_where_they_can_be(monkeypatch):
    def none(*_, **__):
        raise RuntimeError("no backend for cpu")

    monkeypatch.setattr(jax, "local_devices", none)
    assert devices_asked_for() == {None}


def test_a_refusal_names_what_made_the_axis_that_it_meets():
    def apply(p, x):
        spectrum = jnp.fft.rfft(x @ p["a"], axis=1)[:, :3]
        return jnp.real(jnp.einsum("bkc,kcd->bkd", spectrum, p["modes"]) @ p["o"])

    groups = find_nodes(apply, shapes(a=(2, 4), modes=(3, 4, 5), o=(5, 2)), normal(2, 8, 2))
    (refused,) = (
        g for g in groups.values() if [(m.path, m.axis) for m in g.members] == [("modes", 0)]
    )
    assert re.fullmatch(
        r"dot_general at .* joins it with an axis that cannot shrink, which fft at .* makes",
        refused.reason,
    )
