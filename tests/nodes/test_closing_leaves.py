# SPDX-License-Identifier: Apache-2.0
"""Leaves that are not floating stay or are refused by path; half precision and complex work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from zoo import normal

from plprune.gating import pl_gating, score_gating
from plprune.nodes import expand, find_nodes, gate, mask, resize, shrink
from plprune.nodes.gated_apply import gated
from plprune.optimizers import group_lasso
from plprune.scores import Probe, grasp, magnitude, node_lambda_max, ntk_sap, snip, synflow

X = normal(6, 3)
BASE = {"a": normal(3, 6), "b": normal(6, 4)}
PARTS = {"re": jnp.real, "im": jnp.imag}
KEEP = {"a": np.array([1, 0, 1, 1, 0, 1], bool)}


def network(p, x):
    return (jnp.tanh(x @ p["a"]) @ p["b"]) * (1 + p.get("t", 0)) * jnp.ones(())


def switched(p, x):
    return jnp.tanh(x @ jnp.where(p["m"], p["a"], 0)) @ p["b"]


TREES = {
    "int": (network, {"step": jnp.int32(3)}),
    "ints": (network, {"table": jnp.arange(6)}),
    "bool": (switched, {"m": BASE["a"] > -1}),
    "python float": (network, {"t": 1.5}),
    "python int": (network, {"t": 2}),
    "python bool": (network, {"t": True}),
    "bytes": (network, {"t": np.uint8(7)}),
}


@pytest.mark.parametrize("case", TREES)
def test_leaves_that_no_one_trains_stay(case):
    apply, extra = TREES[case]
    tree = BASE | extra
    groups = find_nodes(apply, tree, X)
    (name,) = groups.prunable
    keep, held = {name: KEEP["a"]}, next(iter(extra))
    masked = mask(tree, groups, keep)
    np.testing.assert_array_equal(masked[held], tree[held])
    np.testing.assert_array_equal(gate(tree, groups, {name: jnp.zeros(6)})[held], tree[held])
    small = shrink(tree, groups, keep)
    outputs = resize(apply, groups, keep)(small, X)
    np.testing.assert_allclose(outputs, apply(masked, X), atol=1e-12)
    assert jax.tree.map(jnp.shape, expand(small, groups, keep)) == jax.tree.map(jnp.shape, tree)
    expected = jnp.linalg.norm(BASE["a"], axis=0)
    np.testing.assert_allclose(magnitude(apply, tree, groups)[name], expected, rtol=1e-6)


@pytest.mark.parametrize("case", TREES)
def test_gating_holds_them_fixed_and_lands_on_the_mask(case):
    apply, extra = TREES[case]
    tree, held = BASE | extra, next(iter(extra))
    groups = find_nodes(apply, tree, X)
    options = {"keep_fraction": 0.5, "key": jax.random.key(0), "score": magnitude}
    tx = score_gating(optax.sgd(0.1), apply, groups, **options)
    gradients = jax.grad(lambda p: jnp.sum(apply(p, X)), allow_int=True)(tree)
    state = tx.init(tree)
    updates, state = tx.update(gradients, state, tree, probe=X)
    moved = optax.apply_updates(tree, updates)
    if case != "python float":
        np.testing.assert_array_equal(moved[held], tree[held])
    assert sum(int((~kept).sum()) for kept in state.keep.values()) == 3
    masked = mask(moved, groups, state.keep)
    jax.tree.map(np.testing.assert_array_equal, moved, masked)


def test_random_keys_stay_and_are_not_trained():
    tree = BASE | {"key": jax.random.key(3), "keys": jax.random.split(jax.random.key(4), 6)}
    groups = find_nodes(network, tree, X)
    for function in (mask, shrink):
        result = function(tree, groups, KEEP)
        for name in ("key", "keys"):
            assert jnp.all(result[name] == tree[name])
    assert jnp.all(expand(shrink(tree, groups, KEEP), groups, KEEP)["keys"] == tree["keys"])
    np.testing.assert_allclose(
        magnitude(network, tree, groups)["a"], magnitude(network, BASE, groups_of(network))["a"]
    )
    options = {"keep_fraction": 0.5, "key": jax.random.key(0)}
    for tx in (
        score_gating(optax.sgd(0.1), network, groups, score=magnitude, **options),
        pl_gating(optax.sgd(0.1), network, groups, **options),
    ):
        with pytest.raises(ValueError, match="params: leaf key is a random key"):
            tx.init(tree)


def groups_of(apply, tree=BASE):
    return find_nodes(apply, tree, X)


def test_gates_do_not_act_on_integers():
    """A gate of a half would be rounded to zero."""

    def quantised(p, x):
        return jnp.tanh(x @ p["a"]) @ p["b"].astype(float)

    tree = BASE | {"b": (10 * BASE["b"]).astype(jnp.int8)}
    groups = groups_of(quantised, tree)
    assert groups.prunable == {"a": 6}
    assert groups["a"].reason == "not gateable: b is int8, which no gate scales"
    with pytest.raises(ValueError, match="b is int8"):
        gate(tree, groups, {"a": jnp.full(6, 0.5)})
    small = resize(quantised, groups, KEEP)(shrink(tree, groups, KEEP), X)
    np.testing.assert_allclose(small, quantised(mask(tree, groups, KEEP), X), atol=1e-12)
    probe = Probe(X, X[:, :1], lambda y, t: jnp.sum(y * t, axis=-1))
    expected = jax.grad(
        lambda f: jnp.mean(jnp.sum(quantised(tree | {"a": tree["a"] * f[None]}, X) * X[:, :1], 1))
    )(jnp.ones(6))
    np.testing.assert_allclose(snip(quantised, tree, groups, probe)["a"], jnp.abs(expected))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_scaled_before_it_is_rounded(dtype):
    tree = jax.tree.map(lambda x: x.astype(dtype), BASE)
    groups = groups_of(network, tree)
    gates = {"a": jnp.linspace(0.3, 1.7, 6)}
    scaled = gate(tree, groups, gates)
    exact = (tree["b"].astype(jnp.float32) * gates["a"].astype(jnp.float32)[:, None]).astype(dtype)
    np.testing.assert_array_equal(scaled["b"], exact)
    assert {x.dtype for x in jax.tree.leaves(mask(tree, groups, KEEP))} == {jnp.dtype(dtype)}
    small = shrink(tree, groups, KEEP)
    assert {x.dtype for x in jax.tree.leaves(small)} == {jnp.dtype(dtype)}


def test_complex_weights_count_with_both_parts():
    def waves(p, x):
        return jnp.real(jnp.tanh(x @ p["a"]) @ p["b"])

    tree = jax.tree.map(lambda x: x + 1j * x[::-1], BASE)
    groups = groups_of(waves, tree)
    np.testing.assert_allclose(
        magnitude(waves, tree, groups)["a"], jnp.linalg.norm(tree["a"], axis=0)
    )

    def split(parts, x):
        return waves({n: parts["re"][n] + 1j * parts["im"][n] for n in tree}, x)

    parts = {name: jax.tree.map(part, tree) for name, part in PARTS.items()}
    loss, key = lambda y, t: jnp.sum((y - t) ** 2, axis=-1), jax.random.key(0)
    probe = Probe(X, X[:, :1], loss, key)

    def scaled(factors):
        return jax.tree.map(lambda x: x * factors[:, None] if x.shape == (6, 4) else x, parts)

    def risk(p):
        return jnp.mean(probe.loss(split(p, X), probe.labels))

    def flow(factors):
        return optax.tree.norm(jax.grad(risk)(scaled(factors)), squared=True) / 2

    ones = jnp.ones(6)
    slopes = jax.grad(lambda factors: risk(scaled(factors)))(ones)
    np.testing.assert_allclose(snip(waves, tree, groups, probe)["a"], jnp.abs(slopes))
    flows = jax.jit(lambda t: grasp(waves, t, groups, probe))(tree)["a"]
    np.testing.assert_allclose(flows, jax.jit(jax.grad(flow))(ones))
    signs = jax.random.rademacher(probe.key, (4,), float)
    rows = jax.jacobian(lambda p: split(p, X) @ signs)(parts)
    rows = jnp.concatenate([rows["re"]["a"], rows["im"]["a"]], axis=1)
    largest = [jnp.linalg.norm(rows[:, :, node], 2) ** 2 for node in range(6)]
    np.testing.assert_allclose(node_lambda_max(waves, tree, groups, probe)["a"], largest)
    for score in (synflow, ntk_sap):
        assert np.isfinite(score(waves, tree, groups, probe)["a"]).all()
    with pytest.raises(ValueError, match="params: leaf a must be real for a group lasso"):
        group_lasso(groups, strength=0.1).init(tree)


def test_gated_functions_take_any_tree_of_the_groups():
    tree = BASE | {"step": jnp.int32(3), "t": 1.5}
    groups = groups_of(network, tree)
    gates = {"a": jnp.linspace(0.3, 1.7, 6)}
    ours = gated(network, groups)(tree, X, gates)
    np.testing.assert_allclose(ours, network(gate(tree, groups, gates), X), rtol=1e-12)
    with pytest.raises(ValueError, match=r"gates\['a'\] must hold real numbers"):
        gate(tree, groups, {"a": np.ones(6) * 1j})
    jax.tree.map(
        np.testing.assert_array_equal,
        gate(tree, groups, {"a": [0, 1, 0, 1, 1, 1]}),
        gate(tree, groups, {"a": jnp.array([0.0, 1, 0, 1, 1, 1])}),
    )
