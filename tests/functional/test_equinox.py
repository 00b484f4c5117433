# SPDX-License-Identifier: Apache-2.0
"""What is Equinox's own: one example at a time, State, keys and modes."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equinox_zoo import Attention, Normalised

from plprune.functional import functional_equinox, stateless

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = np.linspace(-1, 2, 24, dtype=np.float32).reshape(6, 4)


def stateful(mode="batch"):
    return eqx.nn.make_with_state(Normalised)(jax.random.key(0), mode)


def names(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths}


def test_trees_are_plain_dictionaries_with_readable_paths():
    net, state = stateful()
    model = functional_equinox(net, state=state)
    assert names(model.params) == {
        *(f"layers.{k}.{leaf}" for k in range(2) for leaf in ("weight", "bias")),
        "norm.weight", "norm.bias",
    }  # fmt: skip
    counts = {"norm.batch_counter", "norm.batch_state_index.0", "norm.batch_state_index.1"}
    assert names(model.state) == {"offset", *counts}


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_it_computes_what_the_module_does_in_both_modes(mode, key):
    net, state = stateful(mode)
    model = functional_equinox(net, state=state)
    keys, many = jax.random.split(key, 6), {"in_axes": (0, None, 0), "out_axes": (0, None)}

    def call(net):
        return lambda x, state, key: net(x, state, key=key)

    outputs, after = model.train(model.params, model.state, INPUTS, key=key)
    expected, state = jax.vmap(call(net), axis_name="rows", **many)(INPUTS, state, keys)
    chex.assert_trees_all_close(outputs, expected, rtol=1e-5)
    again, kept = model.rebuild(model.params, after)
    chex.assert_trees_all_close(jax.tree.leaves(kept), jax.tree.leaves(state), rtol=1e-5)
    outputs = model.apply(model.params, after, INPUTS)
    expected, _ = jax.vmap(call(eqx.nn.inference_mode(again)), axis_name="rows", **many)(
        INPUTS, kept, keys
    )
    chex.assert_trees_all_close(outputs, expected, rtol=1e-5)


def test_a_module_without_state_is_a_function_of_its_parameters():
    net = Attention(jax.random.key(0))
    model, inputs = functional_equinox(net), jnp.ones((2, 3, 6))
    outputs = jax.jit(stateless(model))(model.params, inputs)
    expected = jax.jit(lambda x: jax.vmap(eqx.nn.inference_mode(net))(x))(inputs)
    chex.assert_trees_all_close(outputs, expected, rtol=1e-6)
    again = model.rebuild(model.params, model.state)
    assert eqx.tree_equal(again, net)
    assert not again.attention.dropout.inference


class Keyed(eqx.Module):
    """A key is not optional, and it is split."""

    dropout: eqx.nn.Dropout
    linear: eqx.nn.Linear

    def __init__(self):
        self.dropout = eqx.nn.Dropout(0.5)
        self.linear = eqx.nn.Linear(4, 64, key=jax.random.key(0))

    def __call__(self, x, key):
        return self.dropout(self.linear(x), key=jax.random.split(key)[0])


def test_every_example_has_a_key_of_its_own(key):
    model = functional_equinox(Keyed())
    same = np.ones((2, 4), np.float32)
    first, second = jax.jit(model.train)(model.params, {}, same, key=key)[0]
    assert not jnp.array_equal(first, second)
    first, second = jax.jit(model.apply)(model.params, {}, same)
    assert jnp.array_equal(first, second)


def test_another_call_can_be_named():
    net = Keyed()
    model = functional_equinox(net, call=lambda net, pair: net.linear(pair[0] + pair[1]))
    outputs = model.apply(model.params, {}, (INPUTS, INPUTS))
    chex.assert_trees_all_close(outputs, jax.vmap(net.linear)(2 * INPUTS), rtol=1e-6)


def test_shapes_alone_are_taken_apart():
    shapes = eqx.filter_eval_shape(Attention, jax.random.key(0))
    model = functional_equinox(shapes)
    outputs = jax.eval_shape(model.apply, model.params, {}, jnp.ones((2, 3, 6)))
    assert outputs.shape == (2, 3, 2)


def test_what_does_not_fit_is_named():
    net, state = stateful()
    with pytest.raises(ValueError, match=r"state must be given, as norm.batch_counter keeps one"):
        functional_equinox(net)
    model = functional_equinox(net, state=state)
    with pytest.raises(ValueError, match=r"params must .* unknown: \['norm.bias', 'norm.weight'\]"):
        model.apply({k: v for k, v in model.params.items() if k != "norm"}, model.state, INPUTS)
    with pytest.raises(ValueError, match=r"state must .* unknown: \['extra'\]"):
        model.apply(model.params, {**model.state, "extra": jnp.ones(1)}, INPUTS)
