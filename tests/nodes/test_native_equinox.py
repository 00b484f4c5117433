# SPDX-License-Identifier: Apache-2.0
"""Smaller Equinox modules compute what the resized function does, or say why they cannot."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from discovered import random_keep
from equinox_zoo import Attention, Normalised, Recurrent, UNet, filled
from zoo import normal

from plprune.functional import functional_equinox, paired
from plprune.gating import pl_gating
from plprune.nodes import find_nodes, mask, resize, shrink, shrink_model
from plprune.nodes.cutting import kept_axes
from plprune.nodes.native_equinox import EQUINOX

pytestmark = pytest.mark.usefixtures("models_broadcast")
KEY = jax.random.key(0)


def single(*shape):
    return normal(*shape).astype(jnp.float32)


def setup(model, inputs, closed=0.5):
    """The module taken apart, its variables, its groups and a random keep."""
    module, state = model if isinstance(model, tuple) else (model, None)
    parts = functional_equinox(module, state=state)
    variables = (parts.params, parts.state)
    groups = find_nodes(paired(parts), variables, inputs)
    return parts, variables, groups, random_keep(groups, closed=closed)


def outputs_of(model, inputs):
    module, state = model if isinstance(model, tuple) else (model, None)
    parts = functional_equinox(module, state=state)
    return jax.jit(parts.apply)(parts.params, parts.state, inputs)


MODELS = {  # The tests of `prune` have a U-Net, and a module with a state.
    "attention": (lambda: filled(Attention), single(2, 3, 6), 5),
    "gru": (lambda: filled(Recurrent), single(2, 3, 3), 1),
    "lstm": (lambda: filled(Recurrent, eqx.nn.LSTMCell), single(2, 3, 3), 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_smaller_modules_are_the_resized_function(name):
    build, inputs, num_groups = MODELS[name]
    model = build()
    parts, variables, groups, keep = setup(model, inputs)
    assert len(keep) == num_groups
    structure, before = jax.tree.structure(model), list(map(id, jax.tree.leaves(model)))
    small = shrink_model(model, groups, keep)
    assert (jax.tree.structure(model), list(map(id, jax.tree.leaves(model)))) == (structure, before)
    cut = shrink(variables, groups, keep)
    resized = jax.jit(resize(paired(parts), groups, keep))(cut, inputs)
    masked = jax.jit(parts.apply)(*mask(variables, groups, keep), inputs)
    np.testing.assert_allclose(outputs_of(small, inputs), resized, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(resized, masked, rtol=1e-5, atol=1e-5)


def test_sizes_that_layers_hold_are_those_of_their_arrays():
    """Set by the cut alone; whether the module then runs is for the tests above."""
    small = cut_alone(filled(UNet), single(2, 3, 4, 4))
    for layer in (small.stem, small.depth, small.point, small.down, small.up, small.merge):
        made, read = layer.weight.shape[:2]
        assert (layer.out_channels, layer.in_channels) == (made, read * layer.groups)
    assert small.depth.groups == small.depth.out_channels == 4
    assert small.norm.channels == small.stem.out_channels == small.norm.weight.shape[0]
    assert small.norm.channels // small.norm.groups == 2
    small = cut_alone(filled(Attention), single(2, 3, 6))
    attention = small.attention
    assert attention.query_proj.out_features == attention.num_heads * attention.qk_size
    assert attention.value_proj.out_features == attention.num_heads * attention.vo_size
    assert (attention.num_heads, attention.qk_size, attention.vo_size) == (2, 3, 2)
    assert small.feed.width_size == max(layer.out_features for layer in small.feed.layers[:2]) == 5
    assert small.feed.in_size == small.norm.shape[0] == 6


def cut_alone(model, inputs):
    _, _, groups, keep = setup(model, inputs)
    shapes = dict(zip(groups.paths, groups.shapes, strict=True))
    short = {path.partition(".")[2]: path for path in groups.paths}
    axes = kept_axes(groups, keep)
    cut = {name: axes[path] for name, path in short.items()}
    full = {name: shapes[path] for name, path in short.items()}
    return EQUINOX.cut(model, cut, full, {})[0]


class Reshaped(eqx.Module):
    """A width is written into the code."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear
    other: eqx.nn.Linear

    def __init__(self, key):
        self.first, self.other = (eqx.nn.Linear(4, 8, key=key) for _ in range(2))
        self.last = eqx.nn.Linear(8, 2, key=key)

    def __call__(self, x):
        halves = jnp.tanh(self.first(x)).reshape(2, 4)
        return self.last(halves.reshape(-1) + jnp.tanh(self.other(x)))


class Wide(eqx.Module):
    """A width enters the arithmetic."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, key):
        self.first = eqx.nn.Linear(4, 8, key=key)
        self.last = eqx.nn.Linear(8, 2, key=key)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)) / self.first.out_features)


@pytest.mark.parametrize(
    ("build", "text"),
    [(Reshaped, "does not run .*; use resize"), (Wide, "is off by .*a width enters")],
)
def test_modules_with_widths_of_their_own_are_refused(build, text):
    groups, keep = setup(filled(build), single(3, 4), closed=0.4)[2:]
    with pytest.raises(ValueError, match=text):
        shrink_model(filled(build), groups, keep)


def test_other_models_are_refused_before_work():
    with pytest.raises(ValueError, match=r"must be an NNX or an Equinox module, .* a function"):
        shrink_model(lambda x: x, setup(filled(Wide), single(3, 4))[2], {})


def trained(parts, params, state, optimizer, opt_state, **extra):
    """Ten steps in training mode, on a target of ones."""

    def loss(params, state):
        outputs, state = parts.train(params, state, INPUTS, key=KEY)
        return jnp.mean(jnp.square(outputs - 1)), state

    @jax.jit
    def step(params, state, opt_state, **extra):
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, opt_state = optimizer.update(gradient, opt_state, params, **extra)
        return optax.apply_updates(params, updates), state, opt_state, value

    losses = []
    for _ in range(10):
        extra = {"model_state": state, **extra} if extra else {}
        params, state, opt_state, value = step(params, state, opt_state, **extra)
        losses.append(float(value))
    return params, state, opt_state, losses


INPUTS = single(5, 4)


def test_gating_ten_steps_shrinking_and_ten_more(key):
    parts, _, groups, _ = setup(filled(eqx.nn.make_with_state(Normalised)), INPUTS)
    adam = optax.adam(1e-2)
    gating = pl_gating(adam, parts.apply, groups, keep_fraction=0.5, key=key, initial_updates=2)
    opt_state = gating.init(parts.params)
    params, state, opt_state, _ = trained(
        parts, parts.params, parts.state, gating, opt_state, probe=INPUTS
    )
    small = shrink_model(parts.rebuild(params, state), groups, opt_state.keep)
    assert small[0].layers[0].out_features == small[0].norm.input_size == 4
    left = functional_equinox(small[0], state=small[1])
    expected = jax.jit(parts.apply)(params, state, INPUTS)
    np.testing.assert_allclose(outputs_of(small, INPUTS), expected, rtol=1e-4, atol=1e-5)
    inner = shrink(opt_state.inner, groups, opt_state.keep)
    assert inner[0].count == 10
    _, _, _, losses = trained(left, left.params, left.state, adam, inner)
    assert losses[-1] < losses[0]
