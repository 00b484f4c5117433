# SPDX-License-Identifier: Apache-2.0
"""Shrinking and expanding parameters, pairs, gradients and optimiser states."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from discovered import found, random_keep
from zoo import CASES, batch_norm, fill, normal

from plprune.gating import pl_gating
from plprune.nodes import expand, find_nodes, mask, resize, shrink

MLP = CASES["mlp"]
KEEP = {"0": np.arange(8) % 3 > 0, "1": np.arange(6) % 2 == 0}


def shapes(tree):
    return [x.shape for x in jax.tree.leaves(tree)]


SMALL = [(5, 5), (5,), (5, 3), (3,), (3, 3), (3,)]


def test_kept_slices_stay_and_the_rest_is_gone():
    small = shrink(MLP.params, found("mlp"), KEEP)
    assert shapes(small) == SMALL
    w = np.asarray(MLP.params[1][0])
    np.testing.assert_array_equal(small[1][0], w[np.ix_(KEEP["0"], KEEP["1"])])


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_expanding_gives_the_masked_parameters_and_shrinks_back(name):
    case, groups = CASES[name], found(name)
    keep = random_keep(groups)
    small = shrink(case.params, groups, keep)
    again = expand(small, groups, keep)
    masked = jax.jit(lambda p: mask(p, groups, keep))(case.params)
    jax.tree.map(np.testing.assert_array_equal, again, masked)
    jax.tree.map(np.testing.assert_array_equal, shrink(again, groups, keep), small)


def test_traced_and_single_precision_trees_are_cut_alike():
    groups = found("mlp")
    params = jax.tree.map(lambda x: x.astype(jnp.float32), MLP.params)

    @jax.jit
    def both(tree):
        small = shrink(tree, groups, KEEP)
        return small, expand(small, groups, KEEP)

    small = shrink(params, groups, KEEP)
    eager = small, expand(small, groups, KEEP)
    assert {x.dtype for x in jax.tree.leaves(eager)} == {jnp.dtype("float32")}
    jax.tree.map(np.testing.assert_array_equal, both(params), eager)


def test_positions_of_several_factors_go_with_any_of_them():
    case, groups = CASES["attention"], found("attention")
    keep = {"qkv": np.array([True, False]), "qkv.head_widths_2": np.array([True, False, True])}
    small = shrink(case.params, groups, keep)
    assert small["o"].shape == (2, 6)  # One head of two value channels.
    assert small["qkv"].shape == (6, 3 + 3 + 2)


OPTIMISERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adamw(1e-3),
    "chain": optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 9))
    ),
    "masked": optax.masked(optax.adam(1e-3), [(True, False), (True, False), (False, True)]),
    "accumulated": optax.MultiSteps(optax.adam(1e-3), 2),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_goes_on_after_shrinking_the_state(name):
    optimiser, groups = OPTIMISERS[name], found("mlp")
    state = optimiser.init(MLP.params)
    small = shrink(MLP.params, groups, KEEP)
    cut = shrink(state, groups, KEEP)
    assert jax.tree.structure(cut) == jax.tree.structure(state)
    assert shapes(cut) == shapes(optimiser.init(small))
    jax.eval_shape(optimiser.update, small, cut, small)
    assert shapes(expand(cut, groups, KEEP)) == shapes(state)


def test_the_optimiser_inside_our_gating_goes_on_after_shrinking():
    groups, inner = found("mlp"), optax.adam(1e-3)
    optimiser = pl_gating(inner, MLP.apply, groups, keep_fraction=0.5, key=jax.random.key(0))
    state = jax.eval_shape(optimiser.init, MLP.params)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state._replace(network=()))
    small = shrink(MLP.params, groups, KEEP)
    cut = shrink(state, groups, KEEP)
    assert shapes(cut.inner) == shapes(inner.init(small))
    assert shapes(cut.keep) == shapes(state.keep)
    jax.eval_shape(inner.update, small, cut.inner, small)


def test_a_gradient_of_the_shrunk_loss_is_the_shrunk_gradient():
    groups = found("mlp")

    def loss(apply):
        return lambda p: (apply(p, MLP.inputs) ** 2).sum()

    masked = jax.jit(jax.grad(loss(MLP.apply)))(mask(MLP.params, groups, KEEP))
    resized = resize(MLP.apply, groups, KEEP)
    small = jax.jit(jax.grad(loss(resized)))(shrink(MLP.params, groups, KEEP))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
        small,
        shrink(masked, groups, KEEP),
    )


def stateful(variables, x):
    params, state = variables
    x = batch_norm(x @ params["w"], {**params["norm"], **state["norm"]})
    return jax.nn.relu(x) @ params["o"]


AFFINE = {"scale": np.zeros(4), "bias": np.zeros(4)}
PAIR = (
    fill({"w": np.zeros((5, 4)), "norm": AFFINE, "o": np.zeros((4, 2))}),
    fill({"norm": {name: np.zeros(4) for name in ("mean", "var")}}),
)


def test_parts_of_a_pair_are_recognised_alone():
    groups, keep = find_nodes(stateful, PAIR, normal(3, 5)), {"w": np.array([1, 0, 1, 1], bool)}
    assert groups.prunable == {"w": 4}
    params, state = shrink(PAIR, groups, keep)
    assert params["w"].shape == (5, 3)
    assert state["norm"]["var"].shape == (3,)
    assert shapes(shrink(PAIR[0], groups, keep)) == shapes(params)
    assert shapes(shrink(PAIR[1], groups, keep)) == shapes(state)
    moments = shrink(optax.adam(1e-3).init(PAIR[0]), groups, keep)[0]
    assert shapes(moments.nu) == shapes(params)
    assert moments.count.shape == ()


def test_linen_collections_are_recognised_alone():
    variables = {"params": PAIR[0], "batch_stats": PAIR[1]}
    groups = find_nodes(
        lambda v, x: stateful((v["params"], v["batch_stats"]), x), variables, normal(3, 5)
    )
    keep = {"w": np.array([1, 0, 1, 1], bool)}
    small = shrink(variables, groups, keep)
    assert shapes(shrink(PAIR[0], groups, keep)) == shapes(small["params"])


ERRORS = [
    ({"9": KEEP["0"]}, r"keep names \['9'\]; the groups are"),
    ({"0": np.ones(7, bool)}, r"keep\['0'\] must have shape \(8,\), got \(7,\)"),
    ({"0": np.zeros(8, bool)}, r"keep\['0'\] must keep at least one of 8 nodes, got 0"),
    ({"2": np.arange(3) > 0}, r"keep\['2'\] must be all True: an axis of the function's output"),
]


@pytest.mark.parametrize(("keep", "message"), ERRORS)
def test_bad_keeps_are_named(keep, message):
    for function in (shrink, expand):
        with pytest.raises(ValueError, match=message):
            function(MLP.params, found("mlp"), keep)
    with pytest.raises(ValueError, match=message):
        resize(MLP.apply, found("mlp"), keep)


def test_trees_of_another_size_are_refused_by_leaf():
    small = shrink(MLP.params, found("mlp"), KEEP)
    with pytest.raises(ValueError, match=r"leaf 0.0 must have shape \(5, 8\), got \(5, 5\)"):
        shrink(small, found("mlp"), KEEP)
    with pytest.raises(ValueError, match=r"leaf 0.0 must have shape \(5, 5\), got \(5, 8\)"):
        expand(MLP.params, found("mlp"), KEEP)


def test_a_group_refused_for_pruning_may_be_kept_whole():
    assert shapes(shrink(MLP.params, found("mlp"), {"2": np.ones(3, bool)})) == shapes(MLP.params)
    assert jnp.shape(shrink(jnp.ones(3), found("mlp"), KEEP)) == (3,)
