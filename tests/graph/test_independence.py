# SPDX-License-Identifier: Apache-2.0
"""What the graphs prove of ordinary models, and of each way in which rows meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

from plprune.functional import functional
from plprune.graph.following.walk import LOST, UNEQUAL
from plprune.graph.independence import compared, read_batch, trace_single
from plprune.graph.tracing import trace
from plprune.models import (
    CNN,
    VGG,
    CausalTransformer,
    Encoder,
    LSTMLanguageModel,
    ResNet,
    SwitchTransformer,
    WideResNet,
)
from tests.graph.doubts import mixing
from tests.kernels.models import MODELS
from tests.nodes.zoo import CASES

pytestmark = pytest.mark.usefixtures("models_broadcast")
B = 4
X = jnp.asarray(np.random.default_rng(0).normal(size=(B, 5)))
P = {"a": jnp.ones((5, 6)), "o": jnp.ones((6, 2)), "s": jnp.ones(6), "rows": jnp.ones((B, 6))}
IMAGES = np.ones((3, 8, 8, 3))
SEQUENCES = np.ones((3, 4, 5), np.float32)
TOKENS = np.random.default_rng(1).integers(0, 5, (3, 4))
# Constants with the batch's own shape, or branches on its values.
UNPROVEN = {"cond", "dropout", "stacked views", "dynamic window"}


def hidden(p, x):
    return jnp.tanh(x @ p["a"])


def of_module(module, inputs):
    parts = functional(module)
    return lambda p, x: parts.apply(p, parts.state, x), parts.params, inputs


@pytest.mark.parametrize("name", sorted(CASES.keys() - UNPROVEN))
def test_every_kind_of_model_is_proven(name):
    case = CASES[name]
    assert mixing(case.apply, case.params, case.inputs) is None


@pytest.mark.parametrize("name", sorted(UNPROVEN))
def test_what_reads_rows_is_not(name):
    case = CASES[name]
    assert "the batch axis at" in mixing(case.apply, case.params, case.inputs)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_kernel_is_proven(name):
    assert mixing(*MODELS[name]()) is None


MODULES = {
    "cnn": lambda r: (CNN((8, 8, 3), (4,), (5,), 2, rngs=r), IMAGES),
    "vgg": lambda r: (VGG(3, ((3,), (4,)), (5,), 2, rngs=r), IMAGES),
    "resnet": lambda r: (ResNet(3, (1, 1), (2, 3), 2, rngs=r), IMAGES),
    "wide resnet": lambda r: (WideResNet(3, 10, 1, 2, rngs=r), IMAGES),
    "encoder": lambda r: (Encoder(5, 4, 4, 1, 2, 6, rngs=r), TOKENS),
    "causal transformer": lambda r: (CausalTransformer(5, 4, 4, 1, 2, 6, rngs=r), TOKENS),
    "switch": lambda r: (SwitchTransformer(5, 4, 4, 2, 2, 6, 3, rngs=r), TOKENS),
    "lstm": lambda r: (LSTMLanguageModel(5, 3, (3,), rngs=r), TOKENS),
    "nnx rnn": lambda r: (nnx.RNN(nnx.LSTMCell(5, 6, rngs=r)), SEQUENCES),
    "nnx gru": lambda r: (nnx.RNN(nnx.GRUCell(5, 6, rngs=r)), SEQUENCES),
    "nnx attention": lambda r: (
        nnx.MultiHeadAttention(2, 4, decode=False, rngs=r), np.ones((3, 4, 4)),
    ),
    "nnx group norm": lambda r: (nnx.GroupNorm(4, num_groups=2, rngs=r), np.ones((3, 4, 4))),
    "nnx batch norm": lambda r: (
        nnx.BatchNorm(4, use_running_average=True, rngs=r), np.ones((3, 4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_proven(name):
    assert mixing(*of_module(*MODULES[name](nnx.Rngs(0)))) is None


def test_linen_with_a_causal_mask_is_proven():
    class Block(linen.Module):
        @linen.compact
        def __call__(self, tokens):
            x = linen.Embed(5, 4)(tokens) + linen.Embed(9, 4)(jnp.arange(tokens.shape[1]))
            mask = linen.make_causal_mask(tokens)
            return linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x), mask=mask)

    module = Block()
    assert mixing(module.apply, module.init(jax.random.key(0), TOKENS), TOKENS) is None


def graph_network(p, graph):
    """Messages along edges, summed at their ends; graphs are batched by vmap."""

    def one(nodes, edges):
        message = jnp.tanh(nodes @ p["a"])[edges[:, 0]]
        return jax.ops.segment_sum(message, edges[:, 1], len(nodes)).max(0) @ p["o"]

    return jax.vmap(one)(*graph)


def _recurrent(p, x):
    start = jnp.zeros((len(x), 6)), np.zeros((len(x), 6))
    states, seen = lax.scan(
        lambda c, v: ((jnp.tanh(c[0] * p["s"] + v[:, None]), c[1] + c[0]), c[0]), start, x.T
    )
    return (states[1] + seen[-1]) @ p["o"]


@jax.custom_vjp
def _rounded(x):
    return jnp.round(x)


_rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))
APART = {
    "vmap": lambda p, x: jax.vmap(lambda v: hidden(p, v) @ p["o"])(x),
    "map": lambda p, x: lax.map(lambda v: hidden(p, v) @ p["o"], x),
    "merged with an axis and back": lambda p, x: (
        jnp.tanh((x[:, :, None] * p["a"][None]).reshape(-1, 6) + jnp.tile(p["a"], (len(x), 1)))
        .reshape(len(x), 5, 6)
        .sum(1)
    ),
    "states of the batch's size": _recurrent,
    "loop with a fixed count": lambda p, x: lax.fori_loop(
        0, 3, lambda _, h: jnp.tanh(h * p["s"]), hidden(p, x)
    ),
    "loop that counts": lambda p, x: lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(s[1] * p["s"])), (0, hidden(p, x))
    )[1],
    "loop of each row": lambda p, x: jax.vmap(
        lambda v: lax.while_loop(lambda h: (h**2).sum() < 9, lambda h: h * 1.5, v @ p["a"])
    )(x),
    "relu": lambda p, x: jax.nn.relu(x @ p["a"]) @ p["o"],
    "straight through": lambda p, x: _rounded(hidden(p, x)) @ p["o"],
    "sorted features": lambda p, x: jnp.take_along_axis(
        hidden(p, x), jnp.argsort(x @ p["a"], 1), 1
    ),
    "transform of features": lambda p, x: jnp.fft.fft(hidden(p, x), axis=1).real,
    "energy": lambda p, x: jax.grad(lambda x: jnp.sum(jnp.square(hidden(p, x) @ p["o"])))(x),
    "decomposition": lambda p, x: jnp.linalg.cholesky(
        jnp.eye(6)[None] * 7 + hidden(p, x)[:, :, None] * hidden(p, x)[:, None]
    ),
    "dropout shared by rows": lambda p, x: (
        hidden(p, x) * jax.random.bernoulli(jax.random.key(1), 0.5, (6,))
    ),
    "remat": lambda p, x: jax.checkpoint(hidden)(p, x) @ p["o"],
    "branch on a parameter": lambda p, x: lax.cond(
        p["s"][0] > 0, lambda h: jnp.tanh(h), lambda h: h * p["s"], x @ p["a"]
    ),
}


@pytest.mark.parametrize("name", APART)
def test_rows_that_stay_apart_are_proven(name):
    assert mixing(APART[name], P, X) is None


def test_graphs_batched_by_vmap_are_proven():
    edges = np.random.default_rng(2).integers(0, 6, (3, 7, 2))
    assert mixing(graph_network, P, (jnp.ones((3, 6, 5)), edges)) is None


@pytest.mark.parametrize("size", [2, 5, 6])
def test_a_batch_of_the_size_of_another_axis_is_proven(size):
    """Five inputs, six features: nothing rests on sizes that differ."""
    assert mixing(_recurrent, P, jnp.ones((size, 5))) is None
    assert mixing(APART["decomposition"], P, jnp.ones((size, 5))) is None


def _on_outputs(change):
    return lambda p, x: change(hidden(p, x), p) @ p["o"]


@jax.custom_jvp
def _centred_slope(x):
    return 2 * x


_centred_slope.defjvp(lambda p, t: (2 * p[0], 2 * t[0] + t[0].mean(0)))


@jax.custom_jvp
def _sized_slope(x):
    return 2 * x


_sized_slope.defjvp(lambda p, t: (2 * p[0], len(t[0]) * t[0]))


@jax.custom_vjp
def _turned_gradient(x):
    return 2 * x


_turned_gradient.defvjp(lambda x: (2 * x, None), lambda _, g: (g[::-1],))
KEY = jax.random.key(0)
# What is done to [b, 6] -> the primitive that is named.
TOGETHER = {
    "mean": (lambda h, _: h - h.mean(0), "reduce_sum"),
    "softmax": (lambda h, _: jax.nn.softmax(h, 0), "reduce_max"),
    "running sum": (lambda h, _: jnp.cumsum(h, 0), "cumsum"),
    "reversed running sum": (lambda h, _: lax.cumsum(h, 0, reverse=True), "cumsum"),
    "sorted": (lambda h, _: jnp.sort(h, 0), "sort"),
    "top": (lambda h, _: lax.top_k(h.T, len(h))[0].T, "top_k"),
    "flip": (lambda h, _: h[::-1], "rev"),
    "roll": (lambda h, _: jnp.roll(h, 1, 0), "slice"),
    "permutation": (lambda h, _: h[jnp.array([2, 0, 3, 1]) % len(h)], "gather"),
    "shift": (lambda h, _: jnp.pad(h, ((1, 0), (0, 0)))[:-1], "pad"),
    "halves": (lambda h, _: jnp.concatenate([h[2:], h[:2]]), "slice"),
    "pad both ends": (lambda h, _: lax.pad(h, 0.0, ((1, -1, 0), (0, 0, 0))), "pad"),
    "first row": (lambda h, _: h + h[0], "slice"),
    "chosen row": (lambda h, _: h + lax.dynamic_slice_in_dim(h, 1, 1), "dynamic_slice"),
    "windows of rows": (
        lambda h, _: jax.vmap(lambda k: lax.dynamic_slice_in_dim(h, k, max(len(h) - 1, 1)))(
            jnp.arange(len(h))
        ).sum(1),
        "gather",
    ),
    "written row": (lambda h, _: h.at[0].mul(2.0), "scatter"),
    "segments": (lambda h, _: jax.ops.segment_sum(h, jnp.arange(len(h)) // 2, len(h)), "scatter"),
    "gram": (lambda h, _: (h @ h.T) @ h, "dot_general"),
    "one-hot product": (lambda h, _: jnp.eye(len(h))[::-1] @ h, "dot_general"),
    "pool": (
        lambda h, _: lax.reduce_window(h, -jnp.inf, lax.max, (2, 1), (1, 1), "SAME"),
        "reduce_window_max",
    ),
    "convolution": (
        lambda h, _: lax.conv_general_dilated(h.T[None], jnp.ones((6, 6, 3)), (1,), "SAME")[0].T,
        "conv_general_dilated",
    ),
    "transform": (lambda h, _: jnp.fft.fft(h, axis=0).real, "fft"),
    "other order": (lambda h, _: h.T.reshape(len(h), -1), "reshape"),
    "scan over rows": (
        lambda h, _: lax.scan(lambda c, v: (c + v, c + v), jnp.zeros(6), h)[1],
        "scan",
    ),
    "map that counts": (
        lambda h, _: lax.map(lambda v: v[0] * v[1], (h, 1.0 * jnp.arange(len(h)))),
        "scan",
    ),
    "map of all": (lambda h, _: lax.map(lambda v: v + h[0], h), "slice"),
    "loop on all": (
        lambda h, _: lax.while_loop(lambda a: (a**2).sum() < 99, lambda a: 2 * a, h),
        "while",
    ),
    "branch on all": (lambda h, _: lax.cond(h.sum() > 0, lambda a: a, lambda a: 2 * a, h), "cond"),
    "in a scan": (
        lambda h, _: lax.scan(lambda c, _: (c + c[::-1], None), h, None, length=2)[0],
        "rev",
    ),
    "in vmap": (lambda h, _: jax.vmap(lambda c: c + c[::-1], 1, 1)(h), "rev"),
    "mean by name": (
        lambda h, _: jax.vmap(lambda v: v - lax.pmean(v, "i"), axis_name="i")(h),
        "psum",
    ),
    "row number": (lambda h, _: h * jnp.arange(len(h))[:, None], "mul"),
    "row number by name": (
        lambda h, _: jax.vmap(lambda v: v * lax.axis_index("i"), axis_name="i")(h),
        "mul",
    ),
    "constant rows": (lambda h, _: h + np.linspace(0, 1, len(h))[:, None], "add"),
    "noise": (lambda h, _: h + jax.random.normal(KEY, h.shape), "add"),
    "keys": (
        lambda h, _: jax.vmap(lambda k, v: v * jax.random.normal(k, (6,)))(
            jax.random.split(KEY, len(h)), h
        ),
        "mul",
    ),
    "parameter rows": (lambda h, p: h + p["rows"][: len(h)], "add"),
    "batch size": (lambda h, _: h / len(h), "div"),
    "counted batch": (lambda h, _: h * jnp.ones(len(h)).sum(), "reduce_sum"),
    "last row number": (lambda h, _: h * jnp.arange(len(h)).max(), "iota"),
    "branch on the size": (lambda h, _: jnp.tanh(h) if len(h) > 1 else h, "dot_general"),
    "parameter by the size": (lambda h, p: h * (p["s"] if len(h) > 1 else p["a"][0]), "slice"),
    "order by the size": (
        lambda h, _: (
            h.reshape(-1, 2, 3).swapaxes(1, 2).reshape(-1, 6) if len(h) > 1 else h
        ),
        "dot_general",
    ),
    "slope": (lambda h, _: _centred_slope(h), "custom_jvp_call"),
    "slope by the size": (lambda h, _: _sized_slope(h), "custom_jvp_call"),
    "gradient": (lambda h, _: _turned_gradient(h), "custom_vjp_call"),
    "callback": (
        lambda h, _: h + jax.pure_callback(lambda: np.float64(1), jnp.float64(0)),
        "pure_callback",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_meet_are_named(name):
    change, primitive = TOGETHER[name]
    reason = mixing(_on_outputs(change), P, X)
    assert reason.startswith(primitive)
    assert "test_independence.py" in reason


@pytest.mark.parametrize("name", ["slope", "gradient"])
def test_derivative_rules_are_followed_themselves(name):
    assert "has a derivative that may mix" in mixing(_on_outputs(TOGETHER[name][0]), P, X)


def test_kinds_of_faults_are_told_apart():
    def fault(change):
        graph = trace(_on_outputs(change), P, X)
        return read_batch(graph, B).outputs[0].fault

    assert fault(lambda h, _: h + jnp.arange(B)[:, None]).kind == UNEQUAL
    assert fault(lambda h, _: h[::-1]).kind == LOST
    mixed = read_batch(trace(_on_outputs(lambda h, _: h - h.mean(0)), P, X), B)
    assert mixed.verdict.outcome == "mixed"


def test_a_fault_that_no_output_sees_is_none():
    def aside(p, x):
        _, unused = lax.scan(lambda c, _: (c, c.mean(0)), hidden(p, x), None, length=2)
        del unused
        return lax.scan(lambda c, _: (jnp.tanh(c), c.mean(0)), hidden(p, x), None, length=2)[0]

    assert mixing(aside, P, X) is None


def test_one_row_more_or_less_is_another_function():
    """The batch's graph alone proves too little."""

    def scaled(p, x):
        return hidden(p, x) / len(x)

    read = read_batch(trace(scaled, P, X), B)
    assert read.verdict.outcome == "independent"
    assert compared(read, trace_single(scaled, P, X)).outcome == "unproven"


def test_outputs_as_many_as_examples_are_refused():
    spread = lambda p, x: jnp.broadcast_to(hidden(p, x)[:, :1], (len(x), len(x)))  # noqa: E731
    assert mixing(spread, P, X) == "one example has outputs of shapes [(1,)], of 4 each has [(4,)]"


def test_a_constant_as_long_as_the_batch_counts_by_its_values():
    def with_constant(values):
        return lambda p, x: hidden(p, x) + values[: len(x)]

    assert mixing(with_constant(np.full((B, 6), 2.5)), P, X) is None
    assert mixing(with_constant(np.arange(6 * B).reshape(B, 6)), P, X) is not None
