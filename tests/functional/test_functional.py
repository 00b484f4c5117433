# SPDX-License-Identifier: Apache-2.0
"""Modules as pure functions: modes, structure, randomness and the way back."""

import chex
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equinox_zoo import Normalised
from flax import linen, nnx

from plprune.functional import (
    functional,
    functional_equinox,
    functional_haiku,
    functional_linen,
    paired,
    stateless,
)

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = np.linspace(-1, 2, 24, dtype=np.float32).reshape(6, 4)


class Net(nnx.Module):
    """Everything that needs care: statistics, dropout, a list and a raw array."""

    def __init__(self, *, rngs):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(8, 3, rngs=rngs) for _ in range(2)])
        self.offset = jnp.ones(3)

    def __call__(self, x):
        x = self.dropout(self.norm(self.hidden(x)))
        return self.heads[0](x) + self.heads[1](x) + self.offset


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5)(linen.Dense(8)(x))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(x))


def nnx_model():
    return functional(Net(rngs=nnx.Rngs(0)))


def linen_model():
    net = LinenNet()
    variables = net.init(jax.random.key(0), INPUTS, train=False)
    return functional_linen(net, variables, evaluation={"train": False}, training={"train": True})


def equinox_model(mode="batch"):
    net, state = eqx.nn.make_with_state(Normalised)(jax.random.key(0), mode)
    return functional_equinox(net, state=state)


def haiku_net(x, is_training):
    x = hk.BatchNorm(True, True, 0.5)(hk.Linear(8)(x), is_training)
    x = hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x
    return hk.Linear(3)(x)


def haiku_model():
    net = hk.transform_with_state(haiku_net)
    params, state = net.init(jax.random.key(0), INPUTS, is_training=True)
    modes = {"evaluation": {"is_training": False}, "training": {"is_training": True}}
    return functional_haiku(net, params, state, **modes)


MODELS = {
    "nnx": nnx_model, "linen": linen_model, "equinox": equinox_model, "haiku": haiku_model,
}  # fmt: skip


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return MODELS[name]()


def leaf_names(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths}


def test_trees_are_plain_dictionaries_with_readable_paths():
    model = nnx_model()
    assert leaf_names(model.params) == {
        *("hidden.kernel", "hidden.bias", "norm.scale", "norm.bias"),
        *(f"heads.{i}.{leaf}" for i in range(2) for leaf in ("kernel", "bias")),
    }
    assert leaf_names(model.state) == {"norm.mean", "norm.var", "offset"}
    leaves = jax.tree.leaves((model.params, model.state))
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)


def test_evaluation_equals_the_module_in_evaluation_mode():
    net = Net(rngs=nnx.Rngs(0))
    model = functional(net)
    outputs = model.apply(model.params, model.state, INPUTS)
    net.eval()
    chex.assert_trees_all_close(outputs, net(INPUTS), rtol=1e-6)


def test_evaluation_uses_the_parameters_and_state_it_is_given(model):
    jitted = jax.jit(model.apply)
    zero = jax.tree.map(jnp.zeros_like, model.params)
    outputs = jitted(zero, model.state, INPUTS)
    assert jnp.ptp(outputs) == 0
    before = jitted(model.params, model.state, INPUTS)
    after = jitted(model.params, jax.tree.map(lambda x: x + 1, model.state), INPUTS)
    assert jnp.abs(before - after).min() > 0


def test_examples_are_independent_in_evaluation_mode(model):
    whole = model.apply(model.params, model.state, INPUTS)
    single = jax.vmap(lambda x: model.apply(model.params, model.state, x[None])[0])(INPUTS)
    chex.assert_trees_all_close(whole, single, rtol=1e-5, atol=1e-6)


def test_training_returns_batch_statistics_of_the_hidden_layer(key):
    model = nnx_model()
    _, state = jax.jit(model.train)(model.params, model.state, INPUTS, key=key)
    layer = model.params["hidden"]
    hidden = INPUTS @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    chex.assert_trees_all_close(state["norm"]["mean"], 0.5 * hidden.mean(0), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(state["norm"]["var"], 0.5 + 0.5 * hidden.var(0), rtol=1e-5)
    chex.assert_trees_all_equal(state["offset"], model.state["offset"])
    chex.assert_trees_all_equal_structs(state, model.state)


def test_training_draws_dropout_from_the_key_alone(model, key):
    train = jax.jit(model.train)
    first, _ = train(model.params, model.state, INPUTS, key=key)
    again, _ = train(model.params, model.state, INPUTS, key=key)
    other, _ = train(model.params, model.state, INPUTS, key=jax.random.key(1))
    chex.assert_trees_all_equal(first, again)
    assert not jnp.allclose(first, other)


def test_two_dropout_layers_draw_different_masks(key):
    class Twice(nnx.Module):
        def __init__(self, *, rngs):
            self.first, self.second = (nnx.Dropout(0.5, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            return jnp.stack([self.first(x), self.second(x)])

    model = functional(Twice(rngs=nnx.Rngs(0)))
    (first, second), _ = model.train({}, {}, jnp.ones((1, 64)), key=key)
    assert not jnp.array_equal(first, second)


def test_gradients_flow_under_vmap_over_keys(model, key):
    def loss(params, key):
        return model.train(params, model.state, INPUTS, key=key)[0].var()

    gradient = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    gradients = gradient(model.params, jax.random.split(key, 2))
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(gradients))
    assert any(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_functions_capture_no_array(model):
    jaxpr = jax.make_jaxpr(model.apply)(model.params, model.state, INPUTS)
    assert jaxpr.consts == []


def test_rebuild_returns_a_working_module():
    model = nnx_model()
    doubled = jax.tree.map(lambda x: 2 * x, model.params)
    net = model.rebuild(doubled, model.state)
    assert isinstance(net, Net)
    chex.assert_trees_all_equal(functional(net).params, doubled)
    net.eval()
    chex.assert_trees_all_close(net(INPUTS), model.apply(doubled, model.state, INPUTS), rtol=1e-6)


def test_rebuild_returns_linen_variables():
    model = linen_model()
    outputs = LinenNet().apply(model.rebuild(model.params, model.state), INPUTS, train=False)
    chex.assert_trees_all_close(outputs, model.apply(model.params, model.state, INPUTS))


def test_the_module_is_left_as_it_was(key):
    net = Net(rngs=nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.RngState))))
    model = functional(net)
    model.train(model.params, model.state, INPUTS, key=key)
    after = nnx.to_pure_dict(nnx.state(net, nnx.Not(nnx.RngState)))
    chex.assert_trees_all_equal(before, after)
    assert not net.dropout.deterministic


def test_tied_leaves_appear_once():
    net = Net(rngs=nnx.Rngs(0))
    net.heads[1].kernel = net.heads[0].kernel
    model = functional(net)
    assert "heads.1.kernel" not in leaf_names(model.params)
    net.eval()
    chex.assert_trees_all_close(model.apply(model.params, model.state, INPUTS), net(INPUTS))


def test_another_call_can_be_named():
    model = functional(Net(rngs=nnx.Rngs(0)), call=lambda net, x: net.hidden(x))
    assert model.apply(model.params, model.state, INPUTS).shape == (6, 8)


def test_paired_and_stateless_forms(model):
    with pytest.raises(ValueError, match=r"must have no state, got .*; use paired"):
        stateless(model)
    outputs = paired(model)((model.params, model.state), INPUTS)
    chex.assert_trees_all_equal(outputs, model.apply(model.params, model.state, INPUTS))
    linear = functional(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    assert linear.state == {}
    assert stateless(linear)(linear.params, INPUTS).shape == (6, 2)


def test_rejects_trees_of_another_structure_by_name():
    model = nnx_model()
    with pytest.raises(ValueError, match=r"params must .* unknown: \['norm.bias', 'norm.scale'\]"):
        model.apply({k: v for k, v in model.params.items() if k != "norm"}, model.state, INPUTS)
    with pytest.raises(ValueError, match=r"state must .* unknown: \['extra'\]"):
        model.apply(model.params, {**model.state, "extra": jnp.ones(1)}, INPUTS)
    with pytest.raises(ValueError, match='must hold the collection "params", got \\[\\]'):
        functional_linen(LinenNet(), {})


class Sowing(Net):
    def __call__(self, x):
        y = super().__call__(x)
        self.sow(nnx.Intermediate, "outputs", y)
        if not hasattr(self, "cache"):
            self.cache = nnx.Cache(y)
        return y


@pytest.mark.filterwarnings("ignore:Using .Module.sow")
def test_what_a_call_adds_is_no_state(key):
    module = Sowing(rngs=nnx.Rngs(0))
    model, plain = functional(module), nnx_model()
    assert jax.tree.structure(model.state) == jax.tree.structure(plain.state)
    state = model.state
    for _ in range(2):
        _, state = model.train(model.params, state, INPUTS, key=key)
    assert jax.tree.structure(state) == jax.tree.structure(model.state)
    module.eval()
    expected = module(INPUTS)
    del module.cache
    after = functional(module)  # The module now holds an intermediate.
    assert jax.tree.structure(after.state) == jax.tree.structure(model.state)
    np.testing.assert_allclose(after.apply(after.params, after.state, INPUTS), expected, rtol=1e-6)
    assert jax.tree.leaves(nnx.state(module, nnx.Intermediate))


class LinenSowing(linen.Module):
    @linen.compact
    def __call__(self, x):
        h = linen.BatchNorm(use_running_average=False)(linen.Dense(8)(x))
        self.sow("intermediates", "h", h)
        return linen.Dense(3)(h)


def test_intermediates_of_linen_are_no_state(key):
    module = LinenSowing()
    variables = module.init(jax.random.key(0), INPUTS)
    _, sown = module.apply(variables, INPUTS, mutable=True)
    model = functional_linen(module, {**variables, **sown})
    assert list(model.state) == ["batch_stats"]
    _, state = model.train(model.params, model.state, INPUTS, key=key)
    assert jax.tree.structure(state) == jax.tree.structure(model.state)
