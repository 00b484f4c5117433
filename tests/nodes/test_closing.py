# SPDX-License-Identifier: Apache-2.0
"""Gates multiply what a node's readers see; masks make slices exactly zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from discovered import found, masked_function, random_keep
from zoo import CASES, batch_norm, conv

from plprune.nodes import find_nodes, gate, mask

MLP = CASES["mlp"]


def random_gates(groups, seed=0):
    draws = np.random.default_rng(seed)
    return {
        n: jnp.asarray(draws.uniform(0.2, 1.8, g.size)) for n, g in groups.items() if g.gateable
    }


def gated_mlp(p, x, gates):
    for k, (w, b) in enumerate(p[:-1]):
        x = jax.nn.gelu(x @ w + b) * gates[str(k)]
    return x @ p[-1][0] + p[-1][1]


def gated_resnet(p, x, g):
    """Every convolution and the output read the gated node."""
    x = jax.nn.relu(batch_norm(conv(x, p["stem"]), p["n0"]))
    h = jax.nn.relu(batch_norm(conv(x * g["stem"], p["a1"]), p["n1"]))
    x = jax.nn.relu(x + batch_norm(conv(h * g["a1"], p["a2"]), p["n2"]))
    h = jax.nn.relu(batch_norm(conv(x * g["stem"], p["b1"], 2), p["n3"]))
    short = conv(x * g["stem"], p["shortcut"], 2)
    x = jax.nn.relu(short + batch_norm(conv(h * g["b1"], p["b2"]), p["n4"]))
    return (x.mean((1, 2)) * g["shortcut"]) @ p["out"]


@pytest.mark.parametrize(("name", "by_hand"), [("mlp", gated_mlp), ("resnet", gated_resnet)])
def test_gates_equal_multiplying_the_nodes_by_hand(name, by_hand):
    case, groups = CASES[name], found(name)
    gates = random_gates(groups)
    expected = jax.jit(by_hand)(case.params, case.inputs, gates)
    actual = jax.jit(case.apply)(gate(case.params, groups, gates), case.inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["densenet", "depth multiplier", "attention", "lstm, scanned", "stacked layers", "cond"]
)
def test_gates_of_zero_equal_the_mask(name):
    case, groups = CASES[name], found(name)
    keep = {n: k for n, k in random_keep(groups).items() if groups[n].gateable}
    everything = {n: np.ones(size, bool) for n, size in groups.prunable.items()}
    gates = {n: jnp.asarray(k, float) for n, k in keep.items()}
    actual = jax.jit(lambda g: case.apply(gate(case.params, groups, g), case.inputs))(gates)
    expected = masked_function(name)({**everything, **keep})
    np.testing.assert_allclose(actual, expected, atol=1e-12 * float(jnp.abs(expected).max() + 1))


def test_gate_gradients_are_sums_over_consumer_slices():
    groups = found("mlp")

    def loss(params):
        return (MLP.apply(params, MLP.inputs) ** 2).sum()

    ones = {n: jnp.ones(g.size) for n, g in groups.items() if g.gateable}
    slopes = jax.jit(jax.grad(lambda g: loss(gate(MLP.params, groups, g))))(ones)
    gradient = jax.jit(jax.grad(loss))(MLP.params)
    products = jax.tree.map(jnp.multiply, MLP.params, gradient)
    np.testing.assert_allclose(slopes["0"], products[1][0].sum(1), rtol=1e-9)
    np.testing.assert_allclose(slopes["1"], products[2][0].sum(1), rtol=1e-9)


def test_masked_slices_are_exactly_zero_and_statistics_stay():
    case, groups = CASES["resnet"], found("resnet")
    masked = jax.jit(lambda p: mask(p, groups, {"stem": np.arange(6) > 1}))(case.params)
    for path in (masked["stem"][..., :2], masked["n2"]["scale"][:2], masked["b1"][:, :, :2]):
        assert not path.any()
    for name in ("mean", "var"):
        np.testing.assert_array_equal(masked["n0"][name], case.params["n0"][name])
    np.testing.assert_array_equal(masked["stem"][..., 2:], case.params["stem"][..., 2:])


def test_closed_experts_are_never_chosen():
    case, groups = CASES["switch"], found("switch")
    keep = {"router": np.array([False, True, False, True])}
    masked = jax.jit(lambda p: mask(p, groups, keep))(case.params)
    assert np.isneginf(masked["router_bias"]).tolist() == [True, False, True, False]
    logits = np.asarray(case.inputs) @ masked["router"] + masked["router_bias"]
    assert set(np.asarray(logits).argmax(-1).tolist()) == {1, 3}
    gradient = jax.jit(jax.grad(lambda p: case.apply(p, case.inputs).sum()))(masked)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_traced_gates_and_masks_jit_and_vmap():
    groups = found("mlp")
    many = jnp.arange(3)[:, None] <= jnp.arange(8)[None]
    batch = jax.jit(jax.vmap(lambda k: mask(MLP.params, groups, {"0": k})[1][0]))(many)
    np.testing.assert_array_equal((batch == 0).all(2), ~many)
    scaled = jax.jit(jax.vmap(lambda g: gate(MLP.params, groups, {"0": g})[1][0]))(2.0 * many)
    np.testing.assert_allclose(scaled, 2.0 * many[..., None] * MLP.params[1][0][None])


def test_groups_left_out_and_dtypes_stay():
    single = jax.tree.map(lambda x: x.astype(jnp.float32), MLP.params)
    groups = found("mlp")
    both = jax.jit(
        lambda p: (
            gate(p, groups, {"1": jnp.ones(6)}),
            mask(p, groups, {"1": np.ones(6, bool)}),
        )
    )
    for tree in both(single):
        assert jax.tree.leaves(jax.tree.map(lambda x: x.dtype, tree)) == [jnp.float32] * 6
        np.testing.assert_array_equal(tree[0][0], single[0][0])


def test_gradients_and_optimiser_states_are_masked_too():
    groups, keep = found("mlp"), {"0": np.arange(8) > 2}
    state = optax.adam(1e-3).init(jax.tree.map(jnp.ones_like, MLP.params))
    ones = optax.tree.map_params(optax.adam(1e-3), jnp.ones_like, state)
    masked = jax.jit(lambda tree: mask(tree, groups, keep))(ones)
    assert not masked[0].mu[0][0][:, :3].any()
    assert masked[0].mu[0][0][:, 3:].all()


ERRORS = [
    (
        gate,
        {"9": jnp.ones(8)},
        r"gates names \['9'\]; the groups are \['0.inputs', '0', '1', '2'\]",
    ),
    (gate, {"0": jnp.ones(7)}, r"gates\['0'\] must have shape \(8,\), got \(7,\)"),
    (gate, {"2": jnp.ones(3)}, r"gates\['2'\]: an axis of the function's output"),
    (mask, {"9": np.ones(8, bool)}, r"keep names \['9'\]"),
    (mask, {"0": np.ones(9, bool)}, r"keep\['0'\] must have shape \(8,\), got \(9,\)"),
    (
        mask,
        {"2": np.arange(3) > 0},
        r"keep\['2'\] cannot close nodes: an axis of the function's output",
    ),
]


@pytest.mark.parametrize(("function", "argument", "message"), ERRORS)
def test_bad_arguments_are_named(function, argument, message):
    with pytest.raises(ValueError, match=message):
        function(MLP.params, found("mlp"), argument)


def test_a_traced_mask_of_a_refused_group_is_refused():
    with pytest.raises(ValueError, match="cannot close nodes"):
        jax.jit(lambda k: mask(MLP.params, found("mlp"), {"2": k}))(jnp.ones(3, bool))


@pytest.mark.parametrize(
    ("case", "group", "reason"),
    [
        ("tied autoencoder", "w", "w.1. both makes and reads the node"),
        ("attention", "qkv.head_widths", "reads the node without a parameter to scale"),
        ("lora", "a.neurons", "reads the node without a parameter to scale"),
        ("unit length, baked", "w", "reduce_sum at .*zoo.py.* reads the node without"),
    ],
)
def test_nodes_that_no_parameter_can_gate_say_why(case, group, reason):
    with pytest.raises(ValueError, match=reason):
        gate(CASES[case].params, found(case), {group: jnp.ones(found(case)[group].size)})


def test_weights_scaled_by_constants_can_still_be_gated():
    def scaled(p, x):
        return jnp.tanh(x @ p["a"] / 2) @ (p["b"] / jnp.sqrt(7.0))

    params = {"a": jnp.ones((5, 7)), "b": jnp.arange(14.0).reshape(7, 2)}
    groups, gates = find_nodes(scaled, params, MLP.inputs), {"a": jnp.arange(7.0)}
    hidden = np.tanh(np.asarray(MLP.inputs) @ params["a"] / 2)
    expected = (hidden * gates["a"]) @ params["b"] / np.sqrt(7.0)
    actual = jax.jit(lambda p: scaled(gate(p, groups, gates), MLP.inputs))(params)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
