# SPDX-License-Identifier: Apache-2.0
"""One call prunes a model of any library, and gives what the functions behind it give."""

from functools import partial

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import shaped
from equinox_zoo import Normalised, UNet, filled
from flax import linen, nnx
from zoo import fill, normal

import plprune
from plprune import costs, scores
from plprune.functional import (
    functional,
    functional_equinox,
    functional_haiku,
    functional_linen,
)
from plprune.gating import kappa
from plprune.losses import cross_entropy, squared_error
from plprune.models import ResNet
from plprune.nodes import find_nodes, keep_top, mask
from plprune.scores import Probe

pytestmark = pytest.mark.usefixtures("models_broadcast")
KEY = jax.random.key(0)
prune = partial(plprune.prune, keep_fraction=0.5, score="magnitude")


def single(*shape):
    return normal(*shape).astype(jnp.float32)


class VisionTransformer(nnx.Module):
    """Patches, a block with attention of heads, the mean over positions."""

    def __init__(self, rngs):
        self.patches = nnx.Conv(3, 8, (2, 2), strides=2, rngs=rngs)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (4, 8)))
        self.norms = nnx.List([nnx.LayerNorm(8, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(4, 8, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 12, rngs=rngs), nnx.Linear(12, 8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(len(x), -1, 8) + self.positions
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return self.head(x.mean(1))


class LinenNet(linen.Module):
    width: int = 8

    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(self.width)(x))
        return linen.Dense(3)(jnp.tanh(x))


def mobile_net(x, is_training):
    return hk.nets.MobileNetV1((1, 2), (4, 6), 3)(x, is_training)


def graph_attention(params, features):
    """One attention layer over the edges of a ring, then the mean over its nodes."""
    ring = jnp.abs(jnp.arange(5)[:, None] - jnp.arange(5)) % 4 <= 1
    hidden = features @ params["embed"]
    out, into = hidden @ params["out"], hidden @ params["into"]
    weights = jax.nn.leaky_relu(out[:, :, None] + into[:, None])
    weights = jax.nn.softmax(jnp.where(ring, weights, -1e9))
    return jax.nn.elu(weights @ hidden).mean(1) @ params["head"]


def fourier_operator(params, signal):
    """One Fourier layer with a pointwise bypass, between two pointwise perceptrons."""
    x = jax.nn.gelu(signal @ params["lift"]) @ params["project"]
    spectrum = jnp.fft.rfft(x, axis=1)[:, :3]
    mixed = jnp.einsum("bkc,kcd->bkd", spectrum, params["modes"])
    x = jax.nn.gelu(jnp.fft.irfft(mixed, n=x.shape[1], axis=1) + x @ params["bypass"])
    return jax.nn.gelu(x @ params["hidden"]) @ params["head"]


def nnx_case(build, inputs, **options):
    parts = functional(shaped(build))
    model = parts.rebuild(*(fill(tree, dtype="float32") for tree in (parts.params, parts.state)))
    return model, inputs, options, functional(model)


def positive(leaf):
    values = np.random.default_rng(0).uniform(0.5, 1.5, leaf.shape)
    return jnp.asarray(values, leaf.dtype)


def haiku_case():
    net, inputs = hk.transform_with_state(mobile_net), single(2, 8, 8, 3)
    params, state = jax.eval_shape(lambda: net.init(KEY, inputs, is_training=True))
    params, state = fill(params, dtype="float32"), jax.tree.map(positive, state)
    options = {"evaluation": {"is_training": False}}
    return (net, params, state), inputs, options, functional_haiku(net, params, state, **options)


def linen_case():
    net, inputs = LinenNet(), single(5, 4)
    variables = jax.eval_shape(lambda: net.init(KEY, inputs, train=True))
    variables = jax.tree.map(positive, variables)
    options = {"evaluation": {"train": False}}
    return (net, variables), inputs, options, functional_linen(net, variables, **options)


def equinox_case(build, inputs):
    model = filled(build)
    module, state = model if isinstance(model, tuple) else (model, None)
    return model, inputs, {}, functional_equinox(module, state=state)


def function_case(apply, inputs, **shapes):
    params = fill({name: jnp.zeros(shape) for name, shape in shapes.items()}, dtype="float32")
    return (apply, params), inputs, {}, None


CASES = {
    "resnet": lambda: nnx_case(
        lambda rngs: ResNet(blocks=(1,), widths=(6,), rngs=rngs), single(2, 4, 4, 3)
    ),
    "vision transformer": lambda: nnx_case(
        VisionTransformer, single(2, 4, 4, 3)
    ),
    "linen": linen_case,
    "equinox": lambda: equinox_case(UNet, single(2, 3, 4, 4)),
    "equinox with state": lambda: equinox_case(
        eqx.nn.make_with_state(Normalised), single(5, 4)
    ),
    "haiku mobile net": haiku_case,
    "graph attention": lambda: function_case(
        graph_attention, single(3, 5, 4), embed=(4, 6), out=(6,), into=(6,), head=(6, 2)
    ),
    "fourier operator": lambda: function_case(
        fourier_operator, single(2, 8, 1), lift=(1, 6), project=(6, 4), modes=(3, 4, 4),
        bypass=(4, 4), hidden=(4, 8), head=(8, 1),
    ),
}  # fmt: skip


def outputs_of(model, inputs):
    """Of what `prune` returned."""
    if isinstance(model, nnx.Module):
        parts = functional(model)
    elif isinstance(model, eqx.Module):
        parts = functional_equinox(model)
    elif isinstance(model[0], eqx.Module):
        parts = functional_equinox(model[0], state=model[1])
    else:
        apply, variables = model
        return jax.jit(apply)(variables, inputs)
    return jax.jit(parts.apply)(parts.params, parts.state, inputs)


@pytest.mark.parametrize("name", CASES)
def test_the_smaller_model_is_the_masked_one(name):
    model, inputs, options, parts = CASES[name]()
    small = prune(model, inputs, **options)
    assert any(not kept.all() for kept in small.keep.values())
    if parts is None:
        apply, params = model
        expected = jax.jit(apply)(mask(params, small.groups, small.keep), inputs)
    else:
        closed = mask((parts.params, parts.state), small.groups, small.keep)
        expected = jax.jit(parts.apply)(*closed, inputs)
    np.testing.assert_allclose(outputs_of(small.model, inputs), expected, rtol=1e-5, atol=1e-5)
    assert small.comparison.after.parameters < small.comparison.before.parameters
    assert small.comparison.after.flops < small.comparison.before.flops
    lines = str(small).splitlines()
    assert lines[0].split() == ["before", "after", "after", "/", "before"]
    assert len(lines) == 7 + len(small.keep)


def perceptron(params, x):
    return jnp.tanh(jnp.tanh(x @ params["first"]) @ params["second"]) @ params["head"]


MODEL, INPUTS, _, _ = function_case(
    perceptron, single(12, 3), first=(3, 8), second=(8, 6), head=(6, 2)
)
LABELS = np.arange(12) % 2


@pytest.fixture(scope="module")
def groups():
    return find_nodes(*MODEL, INPUTS)


def listed(keep):
    return {name: kept.tolist() for name, kept in keep.items()}


def test_its_keep_is_that_of_the_functions_it_calls(groups):
    for labels, loss in ((LABELS, cross_entropy), (np.eye(2)[LABELS], squared_error)):
        small = prune(MODEL, INPUTS, score="snip", labels=labels, round_to=4, min_nodes=2)
        values = scores.snip(*MODEL, groups, Probe(INPUTS, labels, loss))
        assert listed(small.keep) == listed(keep_top(values, groups, 0.5, round_to=4, min_nodes=2))
        assert small.model[1]["first"].shape == (3, 4)


def test_kappa_is_learned_by_gates(groups, key):
    small = prune(MODEL, INPUTS, score="kappa", key=key)
    values = kappa(*MODEL, groups, Probe(INPUTS, key=key))
    assert listed(small.keep) == listed(keep_top(values, groups, 0.5))


def test_any_function_is_a_score_and_groups_can_be_left_out():
    def last(apply, params, groups, probe):
        del apply, params, probe
        return {name: jnp.arange(size) for name, size in groups.prunable.items()}

    small = prune(MODEL, INPUTS, score=last, exclude="second")
    assert list(small.keep) == ["first"]
    assert small.keep["first"].tolist() == [False] * 4 + [True] * 4
    assert str(small).endswith("\n\nfirst  4 of 8 neurons")


def test_a_budget_may_be_of_operations():
    small = prune(MODEL, INPUTS, budget="cost")
    assert small.comparison.ratios.flops < 0.7


def test_a_target_takes_the_place_of_a_fraction():
    limit = 0.6 * costs.parameters(MODEL[1])
    small = prune(MODEL, INPUTS, keep_fraction=None, target=plprune.Target(parameters=limit))
    assert 0.5 * limit < small.comparison.after.parameters <= limit
    with pytest.raises(ValueError, match="one of keep_fraction and target"):
        plprune.prune(MODEL, INPUTS, score="magnitude")
    with pytest.raises(ValueError, match=r"budget must be one of \('group', 'global'\)"):
        prune(MODEL, INPUTS, keep_fraction=None, target=plprune.Target(flops=9e9), budget="cost")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"score": "snip"}, "snip needs loss, got None"),
        ({"score": "snip", "loss": cross_entropy}, "snip needs labels, got None"),
        ({"score": "kappa"}, "kappa needs key, got None"),
        ({"score": "large"}, r"score must be a function or one of \['activation', .*, got 'large'"),
        ({"keep_fraction": 0.0}, "keep_fraction must lie in"),
        ({"budget": "layer"}, "budget must be one of"),
        ({"evaluation": {"train": False}}, "evaluation must be None but for Linen and Haiku"),
        ({"exclude": "third"}, "exclude names 'third'"),
    ],
)
def test_what_does_not_fit_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        prune(MODEL, INPUTS, **options)


def test_needs_are_looked_at_before_the_model_is():
    with pytest.raises(ValueError, match="snip needs loss"):
        prune(None, INPUTS, score="snip")
    for model in (None, (), ("net", {}), hk.transform(mobile_net), (graph_attention,)):
        with pytest.raises(ValueError, match="model must be an NNX or Equinox module"):
            prune(model, INPUTS)
    shapes = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"inputs must hold arrays, .* got shapes alone"):
        prune(MODEL, shapes)
    with pytest.raises(ValueError, match=r"model must hold arrays, .* got shapes alone"):
        prune((perceptron, jax.eval_shape(lambda: MODEL[1])), INPUTS)
    with pytest.raises(ValueError, match="call must be None but for NNX and Equinox"):
        prune((graph_attention, {}), INPUTS, call=lambda model, x: model(x))
    with pytest.raises(ValueError, match="model must have a group that can be pruned; w"):
        prune((lambda p, x: x @ p["w"], {"w": jnp.ones((3, 2))}), INPUTS)


class Frozen(linen.Module):
    """The kernel that makes its nodes is no parameter."""

    @linen.compact
    def __call__(self, x):
        kernel = self.variable("frozen", "kernel", jnp.zeros, (3, 8)).value
        shift = self.param("shift", linen.initializers.zeros, (8,))
        return linen.Dense(2)(jnp.tanh(x @ kernel + shift))


def test_scores_look_at_weights_that_are_no_parameters(key):
    variables = jax.eval_shape(lambda: Frozen().init(key, INPUTS))
    variables = jax.tree.map(positive, variables)
    kernel = jnp.full((3, 8), jnp.arange(8.0, 0, -1))
    small = prune((Frozen(), {**variables, "frozen": {"kernel": kernel}}), INPUTS)
    assert listed(small.keep) == {"kernel": [True] * 4 + [False] * 4}
    assert small.model[1]["frozen"]["kernel"].shape == (3, 4)
    assert small.comparison.before.parameters == 8 + 8 * 2 + 2


class Reshaped(eqx.Module):
    """One of its widths is written into the code."""

    free: eqx.nn.Linear
    fixed: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        self.free, self.fixed = eqx.nn.Linear(3, 6, key=key), eqx.nn.Linear(6, 8, key=key)
        self.head = eqx.nn.Linear(8, 2, key=key)

    def __call__(self, x):
        x = jnp.tanh(self.fixed(jnp.tanh(self.free(x))))
        return self.head(x.reshape(2, 4).reshape(-1))


def test_what_a_module_cannot_lose_is_left_and_named():
    model = filled(Reshaped)
    small = prune(model, INPUTS)
    assert (small.left, list(small.keep)) == (("fixed", "fixed.neurons"), ["free"])
    assert (small.model.free.out_features, small.model.fixed.out_features) == (3, 8)
    assert str(small).endswith("cannot lose them: ['fixed', 'fixed.neurons']")
    with pytest.raises(ValueError, match=r"does not run .* in the module itself, a Reshaped"):
        prune(model, INPUTS, exclude="free")


class Pair(nnx.Module):
    """It is not called, but run."""

    def __init__(self, rngs):
        self.first, self.head = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def run(self, x):
        return self.head(nnx.tanh(self.first(x)))


def test_a_module_is_run_as_it_is_called():
    small = prune(Pair(nnx.Rngs(0)), INPUTS, call=lambda pair, x: pair.run(x))
    assert small.model.first.out_features == small.model.head.in_features == 4
