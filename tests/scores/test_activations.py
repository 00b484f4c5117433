# SPDX-License-Identifier: Apache-2.0
"""Norms of activations by hand: layers, heads, convolutions, loops over layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import plprune
from plprune.nodes import find_nodes
from plprune.scores import Probe, activation
from tests.gating.cases import FIRST, GROUPS, INPUTS, PARAMS, SECOND, apply

pytestmark = pytest.mark.usefixtures("models_broadcast")
weighted = partial(activation, weighted=True)


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def rms(values, axis):
    return np.sqrt(np.mean(np.square(values), axis=axis))


def test_of_layers_it_is_the_root_mean_square_behind_the_nonlinearity():
    hidden = [np.tanh(np.asarray(INPUTS @ PARAMS["in"] + PARAMS["a"]))]
    hidden.append(np.tanh(hidden[0] @ np.asarray(PARAMS["mid"]) + np.asarray(PARAMS["b"])))
    plain = activation(apply, PARAMS, GROUPS, Probe(INPUTS))
    with_weights = weighted(apply, PARAMS, GROUPS, Probe(INPUTS))
    for name, values, reader in zip((FIRST, SECOND), hidden, ("mid", "out"), strict=True):
        expected = rms(values, 0)
        np.testing.assert_allclose(plain[name], expected, rtol=1e-6)
        reads = np.linalg.norm(np.asarray(PARAMS[reader]), axis=1)
        np.testing.assert_allclose(with_weights[name], expected * reads, rtol=1e-6)


def test_entries_of_a_head_and_weights_that_read_it_add_up():
    value, out = drawn((4, 2, 3), (2, 3, 5))
    (inputs,) = drawn((6, 7, 4))

    def heads(params, x):
        mixed = jnp.cumsum(jnp.einsum("btd,dhk->bthk", x, params["value"]), axis=1)
        return jnp.einsum("bthk,hko->bto", mixed, params["out"])

    params = {"value": value, "out": out}
    groups = find_nodes(heads, params, inputs)
    (name,) = (n for n in groups.prunable if groups[n].size == 2)
    mixed = np.cumsum(np.einsum("btd,dhk->bthk", inputs, value), axis=1)
    squares = np.mean(mixed**2, axis=(0, 1))
    found = activation(heads, params, groups, Probe(inputs))
    np.testing.assert_allclose(found[name], np.sqrt(squares.sum(1)), rtol=1e-12)
    expected = np.sqrt(np.einsum("hk,hko->h", squares, np.square(out)))
    found = weighted(heads, params, groups, Probe(inputs))
    np.testing.assert_allclose(found[name], expected, rtol=1e-12)


def convolved(params, x):
    x = lax.conv_general_dilated(
        x, params["a"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = lax.conv_general_dilated(
        jax.nn.relu(x), params["b"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jnp.mean(x, axis=(1, 2))


def test_channels_are_averaged_over_positions():
    kernels = dict(zip("ab", drawn((3, 3, 2, 4), (3, 3, 4, 3)), strict=True))
    (inputs,) = drawn((2, 5, 5, 2))
    groups = find_nodes(convolved, kernels, inputs)
    (name,) = groups.prunable
    before = lax.conv_general_dilated(
        inputs, kernels["a"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = rms(np.maximum(before, 0), (0, 1, 2))
    found = activation(convolved, kernels, groups, Probe(inputs))
    np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    reads = np.sqrt(np.square(np.asarray(kernels["b"])).sum((0, 1, 3)))
    found = weighted(convolved, kernels, groups, Probe(inputs))
    np.testing.assert_allclose(found[name], expected * reads, rtol=1e-12)


def layers(params, x):
    def one(x, own):
        return x + jnp.tanh(x @ own["up"]) @ own["down"], None

    return lax.scan(one, x, params)[0]


def test_a_node_of_stacked_layers_counts_with_the_mean_over_them():
    params = dict(zip(("up", "down"), drawn((3, 4, 6), (3, 6, 4)), strict=True))
    (inputs,) = drawn((5, 4))
    groups = find_nodes(layers, params, inputs)
    (name,) = groups.prunable
    x, squares, reads = np.asarray(inputs), [], []
    for up, down in zip(np.asarray(params["up"]), np.asarray(params["down"]), strict=True):
        hidden = np.tanh(x @ up)
        squares.append(np.mean(hidden**2, axis=0))
        reads.append(squares[-1] * np.square(down).sum(1))
        x = x + hidden @ down
    found = jax.jit(lambda p: activation(layers, p, groups, Probe(inputs)))(params)
    np.testing.assert_allclose(found[name], np.sqrt(np.mean(squares, 0)), rtol=1e-12)
    found = weighted(layers, params, groups, Probe(inputs))
    np.testing.assert_allclose(found[name], np.sqrt(np.sum(reads, 0)), rtol=1e-12)


def branching(params, x):
    hidden = jnp.tanh(x @ params["up"])
    down = params["down"]
    return lax.cond(params["up"][0, 0] > 0, lambda: hidden @ down, lambda: 2 * hidden @ down)


def test_readers_that_are_no_plain_products_are_named():
    params = dict(zip(("up", "down"), drawn((4, 6), (6, 4)), strict=True))
    (inputs,) = drawn((5, 4))
    groups = find_nodes(branching, params, inputs)
    with pytest.raises(ValueError, match=r"what reads up\S* \(down\) .* exclude=\('up"):
        activation(branching, params, groups, Probe(inputs))
    with pytest.raises(ValueError, match="can be gated and is not excluded"):
        activation(apply, PARAMS, GROUPS, Probe(INPUTS), exclude=(FIRST, SECOND))
    with pytest.raises(ValueError, match="activation needs inputs, got None"):
        activation(apply, PARAMS, GROUPS, Probe())


def test_what_is_no_number_shows():
    spoilt = PARAMS | {"a": PARAMS["a"].at[3].set(jnp.nan)}
    found = activation(apply, spoilt, GROUPS, Probe(INPUTS))
    assert np.flatnonzero(np.isnan(found[FIRST])).tolist() == [3]
    assert np.isnan(found[SECOND]).all()


def test_a_model_is_pruned_by_its_name():
    small = plprune.prune((apply, PARAMS), INPUTS, keep_fraction=0.5, score="activation")
    expected = plprune.keep_top(activation(apply, PARAMS, GROUPS, Probe(INPUTS)), GROUPS, 0.5)
    for name, kept in expected.items():
        np.testing.assert_array_equal(small.keep[name], kept)
