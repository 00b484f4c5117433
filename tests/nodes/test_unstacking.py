# SPDX-License-Identifier: Apache-2.0
"""Layers taken apart compute the same function, and have node groups of their own."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import random_keep
from stacks import LAYERS, STACKS
from zoo import normal, shapes

from plprune.compilation.identity import identity
from plprune.nodes import find_nodes, mask, resize, shrink, unstack


@cache
def apart(name):
    """A stack, and the same in single layers with its groups."""
    stack = STACKS[name]()
    with jax.numpy_rank_promotion("allow"):
        single, layers = unstack(*stack)
        return stack, single, layers, find_nodes(single, layers, stack.inputs)


def close(ours, theirs):
    tolerance = 1e-12 if jnp.result_type(theirs) == jnp.float64 else 2e-6
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("name", STACKS)
def test_the_function_stays_the_same(name):
    stack, single, layers, _ = apart(name)
    close(jax.jit(single)(layers, stack.inputs), jax.jit(stack.apply)(stack.params, stack.inputs))


BLOCKS = [
    f"blocks.{k}.{part}"
    for k in range(LAYERS)
    for part in ("attention", "attention.query", "attention.value", "up")
]
NAMES = {
    "nnx": ["enter", *BLOCKS],
    "nnx, last axis": ["enter", *BLOCKS],
    "linen": BLOCKS,
    "normalised": [f"blocks.{k}.up" for k in range(LAYERS)],
    "haiku": [f"blocks/up.{k}" for k in range(LAYERS)],
    "scan": ["up.2", "up.1", "up.0"],
    "groups": [f"layers.{k}" for k in range(5)],
}


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_groups_of_its_own(name):
    assert apart(name)[3].prunable.keys() == set(NAMES[name])


@pytest.mark.parametrize("name", ["nnx", "linen", "haiku", "scan", "groups"])
def test_nodes_close_in_single_layers(name):
    stack, single, layers, groups = apart(name)
    keep = random_keep(groups)
    masked = jax.jit(single)(mask(layers, groups, keep), stack.inputs)
    small = shrink(layers, groups, keep)
    close(jax.jit(resize(single, groups, keep))(small, stack.inputs), masked)


def test_a_layer_can_lose_nodes_that_others_keep():
    _, _, layers, groups = apart("nnx")
    small = shrink(layers, groups, {"blocks.1.up": np.arange(5) > 1})[0]["blocks"]
    assert [block["up"]["kernel"].shape for block in small] == [(6, 5), (6, 3), (6, 5)]


def test_derivatives_are_those_of_the_stack():
    stack, single, layers, _ = apart("scan")
    ours = jax.grad(lambda p: (single(p, stack.inputs) ** 2).sum())(layers)
    theirs = jax.grad(lambda p: (stack.apply(p, stack.inputs) ** 2).sum())(stack.params)
    for name in ("up", "bias", "down"):
        close(jnp.stack(ours[name]), theirs[name])
    close(ours["enter"], theirs["enter"])


def test_layers_take_batches_of_other_sizes_and_the_function_stays_what_it_is():
    stack, single, layers, _ = apart("scan")
    before = identity(single)
    for count in (1, 7):
        inputs = normal(count, 4)
        close(single(layers, inputs), stack.apply(stack.params, inputs))
        assert identity(single) == before


def test_statistics_of_a_stack_are_those_of_its_layers():
    _, _, layers, groups = apart("normalised")
    assert groups.held == {f"1.blocks.{k}.norm.{n}" for k in range(LAYERS) for n in ("mean", "var")}
    assert [block["norm"]["mean"].shape for block in layers[1]["blocks"]] == [(5,)] * LAYERS


def test_reasons_tell_the_lines_of_the_stack():
    def function(p, x):
        def layer(x, w):
            return jnp.sort(jnp.tanh(x @ w["up"]), -1) @ w["down"], None

        return jax.lax.scan(layer, x, p)[0]

    single, layers = unstack(function, shapes(up=(2, 4, 5), down=(2, 5, 4)), normal(3, 4))
    groups = find_nodes(single, layers, normal(3, 4))
    assert "test_unstacking.py" in groups["up.0"].reason


def test_shapes_are_taken_apart_too():
    stack = STACKS["scan"]()
    shaped = jax.eval_shape(lambda: stack.params)
    _, layers = unstack(stack.apply, shaped, stack.inputs)
    assert [leaf.shape for leaf in layers["up"]] == [(6, 5)] * LAYERS


def test_a_stack_that_is_read_whole_is_put_together_again():
    def function(p, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["w"])
        return x * jnp.linalg.norm(p["w"]) + jnp.einsum("lij,bj->bi", p["w"], x)

    params, x = shapes(w=(3, 4, 4)), normal(2, 4)
    single, layers = unstack(function, params, x)
    close(single(layers, x), function(params, x))


def test_what_is_no_stack_of_layers_is_refused():
    with pytest.raises(ValueError, match="params must hold layers that are stacked"):
        unstack(lambda p, x: x @ p["w"], shapes(w=(3, 2)), normal(4, 3))


def test_a_scan_over_positions_is_no_stack():
    def function(p, x):
        def step(h, at):
            return jnp.tanh(h @ p["w"] + at[0] + at[1]), None

        return jax.lax.scan(step, x[0], (x, p["position"]))[0]

    with pytest.raises(ValueError, match="params must hold layers that are stacked"):
        unstack(function, shapes(w=(4, 4), position=(5, 4)), normal(5, 4))


def test_other_parameters_are_refused_by_the_leaf():
    stack, single, layers, _ = apart("scan")
    with pytest.raises(ValueError, match=r"missing or unknown: \['up', 'up.0', 'up.1', 'up.2'\]"):
        single({**layers, "up": stack.params["up"]}, stack.inputs)
    with pytest.raises(ValueError, match=r"params: enter must have shape \(4, 6\), got \(6, 4\)"):
        single({**layers, "enter": layers["enter"].T}, stack.inputs)
