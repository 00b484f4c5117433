# SPDX-License-Identifier: Apache-2.0
"""Group lasso against autodiff and the closed-form proximal map, on hand-made groups."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.optimizers import group_lasso, keep_above, node_norms
from plprune.optimizers.group_lasso import group_penalty, penalty_factors
from plprune.types import Member, NodeGroup, NodeGroups

# Two hidden layers, 2 -> 3 -> 2 -> 1; the second layer's weights cross both groups. The third row
# of `w2` reads no node, as a constant feature would.
PARAMS = {
    "w1": jnp.array([[3.0, 0.1, 0.0], [0.0, 0.0, 0.0]]),
    "b1": jnp.array([4.0, 0.0, 0.0]),
    "w2": jnp.array([[0.6, 2.0], [0.0, 0.1], [0.5, 0.0], [0.0, 1.0]]),
    "w3": jnp.array([[7.0], [1.0]]),
}
THREE, TWO = np.arange(3), np.arange(2)
HIDDEN = (Member("w1", 1, THREE), Member("b1", 0, THREE))
READERS = (Member("w2", 0, np.array([0, 1, 2, -1])),)
BY_NAME = {
    "one": NodeGroup("one", 3, "neuron", HIDDEN + READERS, HIDDEN, READERS, True, True, ""),
    "two": NodeGroup(
        "two", 2, "neuron", (Member("w2", 1, TWO), Member("w3", 0, TWO)), (Member("w2", 1, TWO),),
        (Member("w3", 0, TWO),), True, True, "",
    ),
    "out": NodeGroup("out", 1, "neuron", (), (Member("w3", 1, np.zeros(1, int)),), (), False,
                     False, "an output"),
}  # fmt: skip
GROUPS = NodeGroups(
    BY_NAME,
    jax.tree.structure(PARAMS),
    tuple(sorted(PARAMS)),
    tuple(PARAMS[name].shape for name in sorted(PARAMS)),
    inputs=None,
)
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def step(tx, updates=ZEROS, params=PARAMS):
    updates, state = tx.update(updates, tx.init(params), params)
    return updates, optax.apply_updates(params, updates), state


@pytest.mark.parametrize("form", ["rational", "convex"])
def test_penalty_tends_to_the_norm_and_its_factors_are_its_gradient(form):
    vectors = jax.random.normal(jax.random.key(0), (5, 3)).at[0].set(0.0)

    def penalty(vectors, beta=0.1):
        return group_penalty(jnp.sum(vectors**2, axis=1), beta=beta, form=form)

    factors = penalty_factors(jnp.sum(vectors**2, axis=1), beta=0.1, form=form)
    expected = jax.grad(penalty)(vectors)
    chex.assert_trees_all_close(factors[:, None] * vectors, expected, rtol=1e-10)
    norms = jnp.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(penalty(vectors, 1e-12), norms.sum(), rtol=1e-5)
    assert float(penalty(jnp.zeros((5, 3)))) == 0
    steepest = {"rational": 2, "convex": 1}[form] / np.sqrt(0.1)
    np.testing.assert_allclose(penalty_factors(jnp.zeros(1), beta=0.1, form=form), steepest)


def test_convex_form_is_its_definition_without_cancellation():
    squares = jnp.array([1e-20, 0.3, 2.0])
    definition = jnp.sum(jnp.sqrt(squares + 0.1) - np.sqrt(0.1))
    value = group_penalty(squares, beta=0.1, form="convex")
    np.testing.assert_allclose(value, definition)
    tiny = group_penalty(squares[:1], beta=0.1, form="convex")
    np.testing.assert_allclose(tiny, 1e-20 / (2 * np.sqrt(0.1)))


def test_node_norms_of_producers_and_members():
    producers = node_norms(PARAMS, GROUPS)
    assert producers.keys() == {"one", "two"}  # Prunable groups only.
    np.testing.assert_allclose(producers["one"], [5.0, 0.1, 0.0])
    np.testing.assert_allclose(producers["two"], np.sqrt([0.61, 5.01]))
    members = node_norms(PARAMS, GROUPS, slices="members")
    np.testing.assert_allclose(members["one"], np.sqrt([25 + 4.36, 0.02, 0.25]))
    np.testing.assert_allclose(members["two"], np.sqrt([49.61, 6.01]))


@pytest.mark.parametrize("slices", ["producers", "members"])
@pytest.mark.parametrize("form", ["rational", "convex"])
def test_smooth_form_adds_the_gradient_of_the_penalty(form, slices):
    def penalty(params):
        squares = [n**2 for n in node_norms(params, GROUPS, slices=slices).values()]
        return sum(group_penalty(s, beta=0.1, form=form) for s in squares)

    # Away from zero norms, where differentiating the square root needs care.
    params = jax.tree.map(lambda p: p + 0.3, PARAMS)
    tx = group_lasso(GROUPS, strength=0.5, form=form, beta=0.1, slices=slices)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _, _ = step(tx, gradients, params)
    expected = jax.tree.map(lambda g, p: g + 0.5 * p, gradients, jax.grad(penalty)(params))
    chex.assert_trees_all_close(updates, expected, rtol=1e-10)


def test_proximal_form_is_block_soft_thresholding():
    tx = group_lasso(GROUPS, strength=2.0, form="proximal", step_size=0.5)
    _, landed, _ = step(tx)
    expected = {  # Norms 5, .1, 0 and .78, 2.24 lose the radius 1.
        "w1": PARAMS["w1"] * jnp.array([[0.8, 0.0, 0.0]]),
        "b1": PARAMS["b1"] * jnp.array([0.8, 0.0, 0.0]),
        "w2": PARAMS["w2"] * jnp.array([[0.0, 1 - 1 / np.sqrt(5.01)]]),
        "w3": PARAMS["w3"],
    }
    chex.assert_trees_all_close(landed, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_proximal_form_acts_after_the_step_and_closes_nodes_exactly(dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 1 / 3), params)
    prox = group_lasso(GROUPS, strength=3.0, form="proximal", step_size=0.2)
    tx = optax.chain(optax.sgd(0.2), prox)
    updates, _ = tx.update(gradients, tx.init(params), params)
    landed = optax.apply_updates(params, updates)
    moved = jax.tree.map(lambda p, g: p - 0.2 * g, params, gradients)
    norms = node_norms(moved, GROUPS)["one"]
    expected = moved["b1"] * jnp.maximum(0, 1 - 0.6 / norms).astype(dtype)
    chex.assert_trees_all_close(landed["b1"], expected, rtol=1e-5)
    assert (node_norms(landed, GROUPS)["one"][1:] == 0).all()
    chex.assert_trees_all_equal_dtypes(landed, params)


def test_other_weights_pass_through_and_zero_strength_is_the_identity():
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    for slices in ("producers", "members"):
        updates, _, _ = step(group_lasso(GROUPS, strength=1.0, slices=slices), gradients)
        assert (updates["w3"] == 1).all() == (slices == "producers")
        assert (updates["w2"][3] > 1).any()  # The unread row still produces group two.
    for options in ({}, {"form": "proximal", "step_size": 0.1}):
        updates, _, _ = step(group_lasso(GROUPS, strength=0.0, **options), gradients)
        chex.assert_trees_all_close(updates, gradients, rtol=1e-12)


def test_schedules_follow_the_step():
    tx = group_lasso(GROUPS, strength=optax.piecewise_constant_schedule(0.0, {1: 0.0}), beta=1.0)
    constant = group_lasso(GROUPS, strength=0.7, beta=1.0)
    ramp = group_lasso(GROUPS, strength=lambda i: 0.7 * i, beta=1.0)
    state = ramp.init(PARAMS)
    first, state = ramp.update(ZEROS, state, PARAMS)
    second, _ = jax.jit(ramp.update)(ZEROS, state, PARAMS)
    chex.assert_trees_all_equal(first, step(tx)[0], ZEROS)
    chex.assert_trees_all_close(second, step(constant)[0], rtol=1e-12)


def test_keep_above_never_empties_a_group():
    keep = keep_above(PARAMS, GROUPS, threshold=1.0)
    np.testing.assert_array_equal(keep["one"], [True, False, False])
    np.testing.assert_array_equal(keep["two"], [False, True])
    keep = keep_above(PARAMS, GROUPS, threshold=100.0, slices="members")
    np.testing.assert_array_equal(keep["two"], [True, False])
    # The threshold itself is not above; a closed node at 0 goes.
    np.testing.assert_array_equal(keep_above(PARAMS, GROUPS, threshold=0.0)["one"], [1, 1, 0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": -1.0}, "strength must be at least 0, got -1.0"),
        ({"form": "l2"}, "form must be rational, convex or proximal, got 'l2'"),
        ({"beta": 0.0}, "beta must be positive, got 0.0"),
        ({"form": "proximal"}, "step_size goes with form 'proximal' alone, got None"),
        ({"step_size": 0.1}, "step_size goes with form 'proximal' alone, got 0.1"),
        ({"slices": "leaves"}, "slices must be producers or members, got 'leaves'"),
        (
            {"form": "proximal", "step_size": 0.1, "slices": "members"},
            "'proximal' needs slices 'producers', got 'members'",
        ),
    ],
)
def test_rejects_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        group_lasso(GROUPS, **({"strength": 1.0} | options))


def test_rejects_missing_params_foreign_groups_and_negative_thresholds():
    tx = group_lasso(GROUPS, strength=1.0)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(ZEROS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="params must be the tree that the groups were found on"):
        tx.init({"other": jnp.ones(3)})
    with pytest.raises(ValueError, match="threshold must be at least 0, got -1"):
        keep_above(PARAMS, GROUPS, threshold=-1.0)
