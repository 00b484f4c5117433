# SPDX-License-Identifier: Apache-2.0
"""Trees are known by the keys of their leaves: containers of any class, and no other keys."""

import collections
import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.functional import functional, paired, stateless
from plprune.gating import pl_gating, score_gating
from plprune.graph.paths import leaves_with_keys
from plprune.nodes import expand, find_nodes, gate, mask, resize, shrink
from plprune.optimizers import group_lasso
from plprune.scores import Probe, group_lasso_norm, magnitude, node_lambda_max

X = jax.random.normal(jax.random.key(9), (5, 3))


def network(p, x):
    hidden = jnp.tanh(x @ p["first"]["kernel"] + p["first"]["bias"])
    hidden = jnp.tanh(hidden @ p["mid"]["deep"]["w"])
    return hidden @ p["out"]


def params(seed=0):
    shapes = {
        "first": {"kernel": (3, 6), "bias": (6,)},
        "mid": {"deep": {"w": (6, 4)}},
        "out": (4, 2),
    }
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(draws.normal(size=s)), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )


P = params()
with jax.numpy_rank_promotion("allow"):
    GROUPS = find_nodes(network, P, X)
KEEP = {"first": np.arange(6) % 3 > 0, "mid.deep": np.array([True, False, True, True])}
GATES = {"first": np.linspace(0, 1, 6), "mid.deep": np.linspace(0.5, 2, 4)}


@cache
def fields(*names):
    return jax.tree_util.register_dataclass(dataclasses.make_dataclass("Fields", names))


@cache
def names(*keys):
    return collections.namedtuple("Names", keys)


def attributes(entries):
    """A dataclass with these fields, known to jax."""
    return fields(*entries)(**entries)


def named_tuple(entries):
    return names(*entries)(**entries)


def module_like(entries):
    """Boxes in a dictionary, as a state turned into one has."""
    return {k: nnx.Param(v) if isinstance(v, jax.Array) else v for k, v in entries.items()}


CONTAINERS = [
    dict,
    collections.OrderedDict,
    lambda entries: collections.OrderedDict(reversed(entries.items())),
    lambda entries: collections.defaultdict(dict, entries),
    freeze,
    attributes,
    named_tuple,
    module_like,
]


@st.composite
def rewrapped(draw, tree):
    """The tree with every mapping in a container of any class."""
    if not isinstance(tree, dict):
        return tree
    inside = {key: draw(rewrapped(value)) for key, value in tree.items()}
    return draw(st.sampled_from(CONTAINERS))(inside)


WHOLE = [lambda t: nnx.State(t), lambda t: freeze(t), lambda t: jax.tree.map(nnx.Param, t)]


def by_keys(tree):
    return {leaf.keys: np.asarray(leaf.value) for leaf in leaves_with_keys(tree)}


def check_alike(ours, theirs):
    ours, theirs = by_keys(ours), by_keys(theirs)
    assert ours.keys() == theirs.keys()
    for keys, value in theirs.items():
        np.testing.assert_array_equal(ours[keys], value)


OPERATIONS = {
    "mask": lambda t, g: mask(t, g, KEEP),
    "gate": lambda t, g: gate(t, g, GATES),
    "shrink": lambda t, g: shrink(t, g, KEEP),
    "expand": lambda t, g: expand(shrink(t, g, KEEP), g, KEEP),
    "moments": lambda t, g: shrink(optax.adam(0.1).init(t), g, KEEP)[0].mu,
}
EXPECTED = {name: operation(P, GROUPS) for name, operation in OPERATIONS.items()}


@settings(deadline=None, max_examples=12)
@given(st.one_of(rewrapped(P), st.sampled_from(WHOLE).map(lambda wrap: wrap(P))))
def test_containers_do_not_count_and_come_back(tree):
    for name, operation in OPERATIONS.items():
        result = operation(tree, GROUPS)
        assert jax.tree.structure(result) == jax.tree.structure(tree)
        check_alike(result, EXPECTED[name])
    scores = magnitude(network, tree, GROUPS)
    for name, values in magnitude(network, P, GROUPS).items():
        np.testing.assert_allclose(scores[name], values)
    small = resize(lambda t, x: network(plain(t), x), GROUPS, KEEP)(shrink(tree, GROUPS, KEEP), X)
    np.testing.assert_allclose(small, network(mask(P, GROUPS, KEEP), X), atol=1e-12)


def plain(tree):
    """Nested dictionaries of a tree of any containers."""
    nested = {}
    for leaf in leaves_with_keys(tree):
        node = nested
        for key in leaf.keys[:-1]:
            node = node.setdefault(key, {})
        node[leaf.keys[-1]] = leaf.value
    return nested


def test_groups_found_on_any_container_fit_the_dictionary():
    for wrap in (freeze, nnx.State, lambda t: jax.tree.map(nnx.Param, t)):
        groups = find_nodes(lambda t, x: network(plain(t), x), wrap(P), X)
        assert list(groups) == list(GROUPS)
        check_alike(mask(P, groups, KEEP), EXPECTED["mask"])


OTHERS = {
    "another key": ({**P, "out": None, "last": P["out"]}, "leaf out is missing, leaf last is unk"),
    "another module": (
        {"first": P["first"], "middle": P["mid"], "out": P["out"]},
        "mid.deep.w is missi",
    ),
    "one layer": ({"first": P["first"]}, "leaf mid.deep.w is missing"),
    "one level less": (P["mid"], "leaf first.bias is missing, leaf deep.w is unknown"),
    "one level more, in part": (
        {"a": {"first": P["first"]}, "out": P["out"]},
        "first.bias is missing, leaf a",
    ),
    "one leaf more": ({**P, "more": jnp.ones((4, 4))}, "leaf more is unknown"),
    "leaves in a row": (tuple(jax.tree.leaves(P)), "leaf first.bias is missing, leaf 0 is unknown"),
    "values of another model": (
        {"z": jnp.ones((17, 19))},
        "leaf first.bias is missing, leaf z is unk",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_trees_are_refused_by_the_first_path(case):
    tree, message = OTHERS[case]
    if case == "another key":
        tree = {key: value for key, value in tree.items() if value is not None}
    for name in ("mask", "gate", "shrink"):
        with pytest.raises(ValueError, match=message):
            OPERATIONS[name](tree, GROUPS)
    with pytest.raises(ValueError, match=message):
        magnitude(network, tree, GROUPS)
    with pytest.raises(ValueError, match=message):
        expand(tree, GROUPS, KEEP)
    options = {"keep_fraction": 0.5, "key": jax.random.key(0)}
    for transformation in (
        group_lasso(GROUPS, strength=0.1),
        score_gating(optax.sgd(0.1), network, GROUPS, score=magnitude, **options),
        pl_gating(optax.sgd(0.1), network, GROUPS, **options),
    ):
        with pytest.raises(ValueError, match=message):
            transformation.init(tree)


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_any_one_renamed_key_is_refused(data):
    flat = by_keys(P)
    keys = data.draw(st.sampled_from(sorted(flat)))
    position = data.draw(st.integers(0, len(keys) - 1))
    start = keys[: position + 1]
    new = (*keys[:position], data.draw(st.sampled_from(["x", "other", ""])))
    tree = {}
    for path, value in flat.items():
        path = (*new, *path[position + 1 :]) if path[: position + 1] == start else path
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    for name in ("mask", "gate", "shrink"):
        with pytest.raises(ValueError, match=r"leaf .* is missing, leaf .* is unknown"):
            OPERATIONS[name](tree, GROUPS)


def test_holes_and_counters_do_not_count():
    frozen = {**P, "out": None}
    masked = mask(frozen, GROUPS, KEEP)
    assert masked["out"] is None
    np.testing.assert_array_equal(masked["first"]["bias"], EXPECTED["mask"]["first"]["bias"])
    whole_module = {"first": optax.MaskedNode(), "mid": P["mid"], "out": P["out"]}
    assert shrink(whole_module, GROUPS, KEEP)["mid"]["deep"]["w"].shape == (4, 3)
    beside = {**P, "step": jnp.zeros((), jnp.int32), "key": jax.random.key(0)}
    assert shrink(beside, GROUPS, KEEP)["out"].shape == (3, 2)
    state = optax.masked(optax.adam(0.1), {"first": True, "mid": False, "out": True}).init(P)
    small = optax.masked(optax.adam(0.1), {"first": True, "mid": False, "out": True}).init(
        shrink(P, GROUPS, KEEP)
    )
    cut = shrink(state, GROUPS, KEEP)
    assert jax.tree.map(jnp.shape, cut) == jax.tree.map(jnp.shape, small)


def test_layers_of_one_structure_are_not_mistaken_for_each_other():
    layers = tuple({"w": jnp.eye(3), "b": jnp.zeros(3)} for _ in range(3))

    def deep(p, x):
        for layer in p:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return x

    groups = find_nodes(deep, layers, X)
    keep = {"0": np.array([True, False, True])}
    assert shrink(layers, groups, keep)[0]["w"].shape == (3, 2)
    with pytest.raises(ValueError, match=r"fits several parts of the parameters.*pass the param"):
        shrink(layers[1], groups, keep)


def test_names_that_collide_are_told_apart():
    tree = {
        "l.w": P["first"]["kernel"],
        "l": {"w": P["mid"]["deep"]["w"]},
        "o": {"w": P["out"]},
    }

    def apply(p, x):
        return jnp.tanh(jnp.tanh(x @ p["l.w"]) @ p["l"]["w"]) @ p["o"]["w"]

    groups = find_nodes(apply, tree, X)
    assert groups.paths == ("['l']['w']", "['l.w']", "o.w")
    assert groups.prunable == {"['l.w']": 6, "['l']": 4}
    keep = {"['l.w']": np.arange(6) > 2, "['l']": np.arange(4) > 0}
    small = shrink(tree, groups, keep)
    assert jax.tree.map(jnp.shape, small) == {
        "l": {"w": (3, 3)},
        "l.w": (3, 3),
        "o": {"w": (3, 2)},
    }
    expected = apply(mask(tree, groups, keep), X)
    np.testing.assert_allclose(resize(apply, groups, keep)(small, X), expected, atol=1e-12)
    np.testing.assert_allclose(
        magnitude(apply, tree, groups)["['l.w']"], jnp.linalg.norm(tree["l.w"], axis=0)
    )


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](jnp.tanh(self.layers[0](x)))


def optimised(apply, groups, model):
    """The number of closed nodes after one step of `nnx.Optimizer`, and by the state."""
    tx = score_gating(
        optax.sgd(0.1), apply, groups, score=magnitude, keep_fraction=0.5, key=jax.random.key(0)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    gradients = nnx.grad(lambda m: jnp.mean(m(X) ** 2))(model)
    optimizer.update(model, gradients, probe=X)
    closed = (model.layers[0].kernel[...] == 0).all(0).sum()
    return int(closed), [int((~k[...]).sum()) for k in optimizer.opt_state.keep.values()]


def test_optimisers_of_nnx_close_nodes_whatever_the_groups_were_found_on():
    model = Net(nnx.Rngs(0))
    graph, state = nnx.split(model, nnx.Param)
    parts = functional(model)

    def merged(p, x):
        return nnx.merge(graph, p)(x)

    assert optimised(merged, find_nodes(merged, state, X), nnx.clone(model)) == (3, [3])
    apply = stateless(parts)
    groups = find_nodes(apply, parts.params, X)
    assert optimised(apply, groups, nnx.clone(model)) == (3, [3])
    assert list(groups) == list(find_nodes(paired(parts), (parts.params, {}), X))


def test_scores_by_kernels_and_norms_fit_other_containers_too():
    probe = Probe(X, key=jax.random.key(1))
    for score in (node_lambda_max, group_lasso_norm):
        expected = score(network, P, GROUPS, probe)
        for name, values in score(network, freeze(P), GROUPS, probe).items():
            np.testing.assert_allclose(values, expected[name])


def test_penalties_need_the_weights_of_their_nodes():
    def stateful(v, x):
        return jnp.tanh(x @ v[0]["a"] / v[1]["scale"]) @ v[0]["b"]

    pair = ({"a": jnp.ones((3, 6)), "b": jnp.ones((6, 2))}, {"scale": jnp.ones(6)})
    groups = find_nodes(stateful, pair, X, statistics=("scale",))
    group_lasso(groups, strength=0.1).init(pair[0])
    with pytest.raises(ValueError, match="params must hold the weights of the nodes a"):
        group_lasso(groups, strength=0.1).init(pair[1])
    options = {"score": magnitude, "keep_fraction": 0.5, "key": jax.random.key(0)}
    tx = score_gating(optax.sgd(0.1), stateful, groups, **options)
    tx.init(pair[0])
    with pytest.raises(ValueError, match=r"every weight of the nodes a: leaf 0\.a is missing"):
        tx.init(pair[1])
