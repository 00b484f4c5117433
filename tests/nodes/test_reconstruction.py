# SPDX-License-Identifier: Apache-2.0
"""Weights that make up for closed nodes, against least squares in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import found, random_keep
from zoo import CASES

from plprune.nodes import find_nodes, mask, reconstruct, resize, shrink

DRAWS = np.random.default_rng(0)
INPUTS = jnp.asarray(DRAWS.normal(size=(40, 4)))
PARAMS = {
    "in": jnp.asarray(DRAWS.normal(size=(4, 6))),
    "mid": jnp.asarray(DRAWS.normal(size=(6, 5))),
    "shift": jnp.asarray(DRAWS.normal(size=5)),
    "out": jnp.asarray(DRAWS.normal(size=(5, 3))),
}


def layers(params, inputs):
    """Activations, hidden and last; a closed first node is one half, not zero."""
    first = jax.nn.sigmoid(inputs @ params["in"])
    second = jnp.tanh(first @ params["mid"] + params["shift"][None])
    return first, second, second @ params["out"]


def apply(params, inputs):
    return layers(params, inputs)[-1]


GROUPS = find_nodes(apply, PARAMS, INPUTS)
KEEP = {"in": np.array([1, 1, 0, 1, 0, 1], bool), "mid": np.array([1, 0, 1, 1, 1], bool)}


def fit(rows, wanted, bias):
    """Weights and the bias by least squares."""
    rows = np.concatenate([rows, np.ones((len(rows), int(bias)))], axis=1)
    return np.linalg.lstsq(rows, wanted, rcond=None)[0]


def test_each_layer_is_fitted_to_the_whole_models_on_what_earlier_ones_now_give():
    new = reconstruct(apply, PARAMS, GROUPS, KEEP, INPUTS, damping=1e-10)
    first, second, last = map(np.asarray, layers(PARAMS, INPUTS))
    before = first @ np.asarray(PARAMS["mid"]) + np.asarray(PARAMS["shift"])
    best = fit(first[:, KEEP["in"]], before[:, KEEP["mid"]], bias=True)
    np.testing.assert_allclose(new["mid"][KEEP["in"]][:, KEEP["mid"]], best[:-1], rtol=1e-5)
    np.testing.assert_allclose(new["shift"][KEEP["mid"]], best[-1], rtol=1e-5)
    now = np.asarray(layers(new, INPUTS)[1])[:, KEEP["mid"]]
    assert np.abs(now - second[:, KEEP["mid"]]).max() > 1e-3
    best = fit(now, last, bias=False)
    np.testing.assert_allclose(new["out"][KEEP["mid"]], best, rtol=1e-4)
    np.testing.assert_array_equal(new["in"], mask(PARAMS, GROUPS, KEEP)["in"])


def test_it_is_the_smaller_model_and_works_under_jit_with_traced_masks():
    new = reconstruct(apply, PARAMS, GROUPS, KEEP, INPUTS)
    small = resize(apply, GROUPS, KEEP)(shrink(new, GROUPS, KEEP), INPUTS)
    np.testing.assert_allclose(small, apply(new, INPUTS), rtol=1e-10)
    traced = jax.jit(lambda keep: reconstruct(apply, PARAMS, GROUPS, keep, INPUTS))(KEEP)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), traced, new)
    jax.tree.map(np.testing.assert_array_equal, new, mask(new, GROUPS, KEEP))


def test_a_constant_node_goes_into_the_bias_and_a_repeated_one_into_its_twin():
    params = PARAMS | {"in": PARAMS["in"].at[:, 2].set(0).at[:, 4].set(PARAMS["in"][:, 0])}
    keep = {"in": KEEP["in"]}
    new = reconstruct(apply, params, GROUPS, keep, INPUTS, damping=1e-9)
    np.testing.assert_allclose(apply(new, INPUTS), apply(params, INPUTS), atol=1e-5)
    lost = apply(mask(params, GROUPS, keep), INPUTS) - apply(params, INPUTS)
    assert jnp.abs(lost).max() > 0.1


def test_damping_holds_on_to_the_old_weights():
    new = reconstruct(apply, PARAMS, GROUPS, KEEP, INPUTS, damping=1e9)
    old = mask(PARAMS, GROUPS, KEEP)
    for name in ("mid", "out"):
        np.testing.assert_allclose(new[name], old[name], atol=1e-6)


def test_endless_damping_folds_means_only():
    new = reconstruct(apply, PARAMS, GROUPS, {"in": KEEP["in"]}, INPUTS, damping=np.inf)
    old = mask(PARAMS, GROUPS, {"in": KEEP["in"]})
    for name in ("in", "mid", "out"):
        np.testing.assert_array_equal(new[name], old[name])
    closed = ~KEEP["in"]
    mean = np.asarray(layers(PARAMS, INPUTS)[0]).mean(0)[closed]
    np.testing.assert_allclose(new["shift"], PARAMS["shift"] + mean @ PARAMS["mid"][closed])


def test_nothing_closed_changes_nothing():
    everything = {name: np.ones(size, bool) for name, size in GROUPS.prunable.items()}
    new = reconstruct(apply, PARAMS, GROUPS, everything, INPUTS)
    jax.tree.map(np.testing.assert_array_equal, new, PARAMS)


@pytest.mark.parametrize("name", ["cnn, flattened", "mobilenet"])
def test_convolutions_lose_less(name):
    case, groups = CASES[name], found(name)
    keep = random_keep(groups)
    new = reconstruct(case.apply, case.params, groups, keep, case.inputs)
    whole = case.apply(case.params, case.inputs)
    masked = case.apply(mask(case.params, groups, keep), case.inputs)
    outputs = case.apply(new, case.inputs)
    assert jnp.linalg.norm(outputs - whole) < jnp.linalg.norm(masked - whole) / 5
    small = resize(case.apply, groups, keep)(shrink(new, groups, keep), case.inputs)
    np.testing.assert_allclose(small, outputs, atol=1e-10)


def test_half_precision_is_solved_in_float32_and_stored_as_it_was():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    new = reconstruct(apply, half, GROUPS, KEEP, INPUTS.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype(jnp.bfloat16)}
    wide = reconstruct(apply, PARAMS, GROUPS, KEEP, INPUTS)
    for name, leaf in new.items():
        np.testing.assert_allclose(leaf.astype(float), wide[name], atol=0.1)


def test_a_leaf_that_is_read_twice_is_refused_by_name():
    def twice(params, inputs):
        return (
            jnp.tanh(inputs @ params["in"]) @ params["mid"]
            + (inputs @ params["in"]) @ params["mid"]
        )

    own = {name: PARAMS[name] for name in ("in", "mid")}
    groups = find_nodes(twice, own, INPUTS)
    keep = {"in": KEEP["in"]}
    with pytest.raises(ValueError, match=r"in \(mid reads it more than once\).*'in',"):
        reconstruct(twice, own, groups, keep, INPUTS)
    plain = reconstruct(twice, own, groups, keep, INPUTS, exclude="in")
    jax.tree.map(np.testing.assert_array_equal, plain, mask(own, groups, keep))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="damping must be above 0"):
        reconstruct(apply, PARAMS, GROUPS, KEEP, INPUTS, damping=-1.0)
    with pytest.raises(ValueError, match="keep names"):
        reconstruct(apply, PARAMS, GROUPS, {"no": KEEP["in"]}, INPUTS)
