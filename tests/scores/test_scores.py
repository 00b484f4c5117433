# SPDX-License-Identifier: Apache-2.0
"""Every score against a direct computation on a two-layer network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune import scores
from plprune.functional import functional, paired
from plprune.losses import cross_entropy, squared_error
from plprune.models import CNN
from plprune.nodes import find_nodes
from plprune.scores import Probe
from plprune.scores.slices import scaled, unit_factors

pytestmark = pytest.mark.usefixtures("models_broadcast")
NAMES = list(scores.SCORES)


def apply(params, inputs):
    hidden = jnp.tanh(inputs @ params["in"] + params["shift"][None])
    return hidden @ params["out"] + params["end"][None]


def relu_apply(params, inputs):
    return (
        jax.nn.relu(inputs @ params["in"] + params["shift"][None]) @ params["out"]
        + params["end"][None]
    )


def draw(key, dtype=jnp.float64):
    keys = jax.random.split(key, 4)
    shapes = {"in": (3, 5), "shift": (5,), "out": (5, 2), "end": (2,)}
    pairs = zip(keys, shapes.items(), strict=True)
    return {name: jax.random.normal(k, shape, dtype) for k, (name, shape) in pairs}


PARAMS = draw(jax.random.key(3))
INPUTS = jax.random.normal(jax.random.key(4), (6, 3), jnp.float64)
LABELS = jnp.array([0, 1, 1, 0, 1, 0])
GROUPS = find_nodes(apply, PARAMS, INPUTS)
(NAME,) = GROUPS.prunable
KEY = jax.random.key(5)


def scored(name, params=PARAMS, function=apply, **options):
    options = {"inputs": INPUTS, "labels": LABELS, "loss": cross_entropy, "key": KEY} | options
    own = {"init": options.pop("init")} if "init" in options else {}
    return scores.SCORES[name](function, params, GROUPS, Probe(**options), **own)


def node_score(name, params=PARAMS, **options):
    result = jax.jit(lambda p: scored(name, p, **options))(params)
    assert set(result) == {NAME}
    return np.asarray(result[NAME])


def gated_loss(gates, params=PARAMS, inputs=INPUTS, labels=LABELS):
    """By hand: the activation is multiplied, not the weights."""
    hidden = jnp.tanh(inputs @ params["in"] + params["shift"][None]) * gates[None]
    return jnp.mean(cross_entropy(hidden @ params["out"] + params["end"][None], labels))


def slope_by_differences(function, step=1e-6):
    ones = np.ones(5)
    rows = step * np.eye(5)
    return np.array([(function(ones + r) - function(ones - r)) / (2 * step) for r in rows])


def test_random_is_uniform_and_follows_the_key():
    first, again = node_score("random"), node_score("random")
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, node_score("random", key=jax.random.key(6)))
    assert ((first >= 0) & (first < 1)).all()


def test_magnitude_is_the_norm_of_incoming_weights_and_bias():
    expected = np.sqrt((np.asarray(PARAMS["in"]) ** 2).sum(0) + np.asarray(PARAMS["shift"]) ** 2)
    np.testing.assert_allclose(node_score("magnitude"), expected, rtol=1e-12)


def test_group_lasso_norm_counts_outgoing_weights_too():
    squares = sum((np.asarray(PARAMS[n]) ** 2).sum(0) for n in ("in",))
    squares = squares + np.asarray(PARAMS["shift"]) ** 2 + (np.asarray(PARAMS["out"]) ** 2).sum(1)
    np.testing.assert_allclose(node_score("group_lasso_norm"), np.sqrt(squares), rtol=1e-12)


def test_snip_is_the_slope_of_the_loss_in_the_activations_gate():
    expected = np.abs(slope_by_differences(jax.jit(gated_loss)))
    np.testing.assert_allclose(node_score("snip"), expected, rtol=1e-6)


def test_taylor_averages_absolute_slopes_of_single_examples():
    slope = jax.jit(jax.grad(gated_loss))
    each = [slope(jnp.ones(5), PARAMS, INPUTS[i : i + 1], LABELS[i : i + 1]) for i in range(6)]
    np.testing.assert_allclose(node_score("taylor"), np.abs(each).mean(0), rtol=1e-10)
    assert (node_score("taylor") > node_score("snip")).any()


def test_grasp_is_half_the_slope_of_the_squared_gradient_norm():
    def half_flow(gates):
        scaled_params = PARAMS | {"out": PARAMS["out"] * gates[:, None]}
        gradient = jax.grad(lambda p: gated_loss(jnp.ones(5), p))(scaled_params)
        return sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)) / 2

    expected = slope_by_differences(jax.jit(half_flow))
    np.testing.assert_allclose(node_score("grasp"), expected, rtol=1e-5, atol=1e-8)


def test_synflow_is_the_product_of_absolute_path_weights():
    ones = {name: jnp.abs(p) for name, p in PARAMS.items()}
    through = np.asarray(jnp.sum(ones["in"], 0) + ones["shift"]) * np.asarray(ones["out"]).sum(1)
    np.testing.assert_allclose(node_score("synflow", function=relu_apply), through, rtol=1e-12)
    other = node_score("synflow", function=relu_apply, inputs=7 * INPUTS)
    np.testing.assert_array_equal(node_score("synflow", function=relu_apply), other)


def test_ntk_sap_is_the_slope_of_the_perturbed_outputs_distance():
    key_weights, key_noise, key_inputs = jax.random.split(KEY, 3)
    inputs = jax.random.normal(jax.random.fold_in(key_inputs, 0), INPUTS.shape)
    for init in (None, draw):
        weights = PARAMS if init is None else init(key_weights)
        noise = {
            name: 0.01 * jax.random.normal(jax.random.fold_in(key_noise, k), weights[name].shape)
            for k, name in enumerate(GROUPS.paths)
        }

        def distance(gates, weights=weights, noise=noise):
            far = jax.tree.map(jnp.add, weights, noise)
            outputs = [
                apply(p | {"out": p["out"] * gates[:, None]}, inputs) for p in (weights, far)
            ]
            return jnp.sum((outputs[0] - outputs[1]) ** 2)

        expected = np.abs(slope_by_differences(jax.jit(distance)))
        np.testing.assert_allclose(node_score("ntk_sap", init=init), expected, rtol=1e-5)


def test_node_lambda_max_is_the_top_eigenvalue_of_the_nodes_own_kernel():
    signs = np.asarray(jax.random.rademacher(KEY, (2,), jnp.float64))
    hidden = np.tanh(np.asarray(INPUTS @ PARAMS["in"] + PARAMS["shift"][None]))
    back = (1 - hidden**2) * (np.asarray(PARAMS["out"]) @ signs)
    gram = np.asarray(INPUTS @ INPUTS.T) + 1  # The bias reads a constant one.
    expected = [np.linalg.eigvalsh(gram * np.outer(c, c))[-1] for c in back.T]
    np.testing.assert_allclose(node_score("node_lambda_max"), expected, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_scores_jit_and_keep_to_prunable_groups_in_float32(name):
    params = jax.tree.map(lambda p: p.astype(jnp.float32), PARAMS)
    inputs = INPUTS.astype(jnp.float32)
    values = jax.jit(lambda p: scored(name, p, inputs=inputs))(params)
    assert set(values) == {NAME}
    if name not in ("random", "ntk_sap"):  # These draw in the dtype.
        np.testing.assert_allclose(values[NAME], node_score(name), rtol=2e-4, atol=1e-5)
    assert np.isfinite(values[NAME]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_model_scores_without_nan(name):
    values = node_score(name, params=jax.tree.map(jnp.zeros_like, PARAMS))
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", ["snip", "taylor", "grasp"])
def test_scores_of_the_loss_ask_for_it(name):
    with pytest.raises(ValueError, match=f"{name} needs loss, got None"):
        scored(name, loss=None)
    with pytest.raises(ValueError, match=f"{name} needs labels, got None"):
        scored(name, labels=None)


@pytest.mark.parametrize("name", ["random", "ntk_sap", "node_lambda_max"])
def test_scores_that_draw_ask_for_a_key(name):
    with pytest.raises(ValueError, match=f"{name} needs key, got None"):
        scored(name, key=None)


@pytest.fixture(scope="module")
def convolutional():
    model = functional(CNN((6, 6, 1), (3, 4), out_features=2, rngs=nnx.Rngs(0)))
    state = jax.tree.map(lambda s: s + 0.3, model.state)
    inputs = jax.random.normal(KEY, (4, 6, 6, 1), jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        groups = find_nodes(paired(model), (model.params, state), inputs)
    return model, state, inputs, groups


def test_parameters_alone_score_as_in_a_pair_with_their_state(convolutional):
    model, state, inputs, groups = convolutional
    labels = jnp.eye(2, dtype=jnp.float32)[jnp.array([0, 1, 0, 1])]
    probe = Probe(inputs, labels, squared_error, KEY)

    @jax.jit
    def both(params, state):
        results = {}
        for name in ("magnitude", "grasp", "synflow", "node_lambda_max"):
            score = scores.SCORES[name]
            pair = score(paired(model), (params, state), groups, probe)
            alone = score(lambda p, x: model.apply(p, state, x), params, groups, probe)
            results[name] = pair, alone
        return results

    for pair, alone in both(model.params, state).values():
        assert set(pair) == set(groups.prunable)
        for group in pair:
            np.testing.assert_allclose(pair[group], alone[group], rtol=1e-4, atol=1e-6)


def test_groups_without_a_gate_are_scored_by_what_computes_them():
    def tied(params, inputs):
        return jnp.tanh(inputs @ params["w"]) @ params["w"].T

    params = {"w": PARAMS["in"]}
    groups = find_nodes(tied, params, INPUTS)
    (name,) = groups.prunable
    assert not groups[name].gateable
    factors = {name: jnp.full(5, 2.0)}
    np.testing.assert_allclose(scaled(params, groups, factors)["w"], 2 * params["w"])
    assert unit_factors(groups)[name].shape == (5,)
    loss, target = squared_error, jnp.zeros_like(INPUTS)

    def objective(w):
        return jnp.mean(loss(tied({"w": w}, INPUTS), target))

    expected = jnp.abs(jnp.sum(params["w"] * jax.grad(objective)(params["w"]), axis=0))
    values = scores.snip(tied, params, groups, Probe(INPUTS, target, loss))
    np.testing.assert_allclose(values[name], expected, rtol=1e-10)
