# SPDX-License-Identifier: Apache-2.0
"""Small functions of every kind, with the groups that should be found in them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

H, T, D, F = 2, 4, 6, 5  # Heads, positions, features, feed-forward width.


class Case(NamedTuple):
    """A function with random parameters, and the sizes of its prunable groups."""

    apply: Callable[[Any, Any], Any]
    params: Any
    inputs: Any
    groups: dict[str, int]
    mode: str = "strict"


def fill(tree, seed=0, dtype=float):
    """Random leaves: weights of order 1 / sqrt(fan-in), shifted biases, variances above 1/2."""
    draws = np.random.default_rng(seed)

    def draw(path, leaf):
        shape = np.shape(leaf)
        values = draws.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))) ** (len(shape) > 1)
        if jax.tree_util.keystr(path).endswith("var']"):
            values = np.abs(values) + 0.5
        return jnp.asarray(values + 0.3 * (len(shape) == 1), dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def shapes(**leaves):
    """Random arrays of given shapes."""
    return fill({name: np.zeros(shape) for name, shape in leaves.items()})


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape))


def conv(x, kernel, stride=1, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def batch_norm(x, p):
    return (x - p["mean"]) * jax.lax.rsqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]


def statistics(n):
    return {name: np.zeros(n) for name in ("mean", "var", "scale", "bias")}


def mlp(p, x):
    for w, b in p[:-1]:
        x = jax.nn.gelu(x @ w + b)
    return x @ p[-1][0] + p[-1][1]


def layers(*widths):
    """Weights and biases of an MLP."""
    return fill([(np.zeros(pair), np.zeros(pair[1])) for pair in pairwise(widths)])


def sigmoid_mlp(p, x):
    return jax.nn.sigmoid(x @ p["a"] + p["b"]) @ p["c"]


def flat_cnn(p, x):
    x = jax.nn.relu(conv(x, p["k1"]) + p["b1"])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jnp.tanh(conv(x, p["k2"]) + p["b2"])
    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return jax.nn.relu(x.reshape(len(x), -1) @ p["w"] + p["b"]) @ p["out"]


def resnet(p, x):
    x = jax.nn.relu(batch_norm(conv(x, p["stem"]), p["n0"]))
    h = jax.nn.relu(batch_norm(conv(x, p["a1"]), p["n1"]))
    x = jax.nn.relu(x + batch_norm(conv(h, p["a2"]), p["n2"]))
    h = jax.nn.relu(batch_norm(conv(x, p["b1"], 2), p["n3"]))
    x = jax.nn.relu(conv(x, p["shortcut"], 2) + batch_norm(conv(h, p["b2"]), p["n4"]))
    return x.mean((1, 2)) @ p["out"]


RESNET = fill(
    {
        "stem": np.zeros((3, 3, 3, 6)), "n0": statistics(6),
        "a1": np.zeros((3, 3, 6, 5)), "n1": statistics(5),
        "a2": np.zeros((3, 3, 5, 6)), "n2": statistics(6),
        "b1": np.zeros((3, 3, 6, 7)), "n3": statistics(7),
        "b2": np.zeros((3, 3, 7, 8)), "n4": statistics(8),
        "shortcut": np.zeros((1, 1, 6, 8)), "out": np.zeros((8, 3)),
    }
)  # fmt: skip


def padded_shortcut(p, x):
    """The shortcut of [He 2016] option A: strided, with zero channels appended."""
    x = jax.nn.relu(conv(x, p["stem"]))
    h = conv(jax.nn.relu(conv(x, p["a"], 2)), p["b"])
    x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (1, 2)))
    return jax.nn.relu(x + h).mean((1, 2)) @ p["out"]


def shifted_pad(p, x):
    x = jnp.tanh(x @ p["a"] + p["b"])
    return jnp.pad(x, ((0, 0), (1, 1)), constant_values=2.0) @ p["c"]


def mobilenet(p, x):
    x = conv(x, p["stem"])
    h = jax.nn.relu6(conv(x, p["expand"]))
    h = jax.nn.relu6(batch_norm(conv(h, p["depth"], groups=6), p["norm"]))
    return (x + conv(h, p["project"])).mean((1, 2)) @ p["out"]


def mobile_params(multiplier):
    return fill(
        {
            "stem": np.zeros((3, 3, 3, 4)),
            "expand": np.zeros((1, 1, 4, 6)),
            "depth": np.zeros((3, 3, 1, 6 * multiplier)),
            "norm": statistics(6 * multiplier),
            "project": np.zeros((1, 1, 6 * multiplier, 4)),
            "out": np.zeros((4, 3)),
        }
    )


def grouped(p, x):
    return jax.nn.relu(conv(jax.nn.relu(conv(x, p["a"])), p["b"], groups=4)).mean((1, 2)) @ p["out"]


def shuffle(p, x, groups=4):
    """Grouped convolutions with a channel shuffle between them [Zhang 2018]."""
    x = jax.nn.relu(conv(jax.nn.relu(conv(x, p["a"])), p["b"], groups=groups))
    x = x.reshape(*x.shape[:3], groups, -1).swapaxes(3, 4).reshape(x.shape)
    return jax.nn.relu(conv(x, p["c"], groups=groups)).mean((1, 2)) @ p["out"]


def squeeze_excite(p, x):
    x = jax.nn.swish(conv(x, p["a"]))
    gate = jax.nn.sigmoid(jax.nn.relu(x.mean((1, 2)) @ p["f1"]) @ p["f2"] + p["b2"])
    return jax.nn.relu(conv(x * gate[:, None, None], p["c"])).mean((1, 2)) @ p["out"]


def densenet(p, x):
    x = conv(x, p["a"])
    x = jnp.concatenate([x, jax.nn.relu(conv(x, p["b"]))], -1)
    x = jax.nn.relu(batch_norm(x, p["n"]))
    x = jnp.concatenate([x, conv(x, p["c"])], -1)
    return x.mean((1, 2)) @ p["out"]


def unet(p, x):
    a = jax.nn.relu(conv(x, p["down"]))
    b = jax.nn.relu(conv(a, p["middle"], 2))
    dims = ("NHWC", "HWIO", "NHWC")
    up = jax.lax.conv_transpose(b, p["up"], (2, 2), "SAME", dimension_numbers=dims)
    return conv(jnp.concatenate([jax.nn.relu(up), a], -1), p["out"])


def group_norm(p, x):
    x = conv(x, p["a"]) + p["b"]
    parts = x.reshape(*x.shape[:3], 3, 2)
    centred = parts - parts.mean((1, 2, 4), keepdims=True)
    parts = centred * jax.lax.rsqrt((centred**2).mean((1, 2, 4), keepdims=True) + 1e-5)
    x = jax.nn.relu(parts.reshape(x.shape) * p["scale"] + p["bias"])
    return conv(x, p["c"]).sum((1, 2)) @ p["out"]


def attention(p, x):
    """Causal attention with fused queries, keys and values, heads by reshape."""
    q, k, v = jnp.split(x @ p["qkv"] + p["b"], 3, -1)
    q, k, v = (a.reshape(-1, T, H, D // H).transpose(0, 2, 1, 3) for a in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(D // H)
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores, -1e9))
    return (weights @ v).transpose(0, 2, 1, 3).reshape(-1, T, D) @ p["o"]


def grouped_queries(p, x):
    """Four query heads on two pairs of keys and values, with rotary positions."""
    q, k, v = ((x @ p[n]).reshape(-1, T, heads, 4) for n, heads in (("q", 4), ("k", 2), ("v", 2)))
    angles = jnp.arange(T)[:, None] * jnp.array([1.0, 0.1])
    c, s = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]

    def rotate(z):
        a, b = z[..., :2], z[..., 2:]
        return jnp.concatenate([a * c - b * s, b * c + a * s], -1)

    q, k = rotate(q).reshape(-1, T, 2, 2, 4), rotate(k)
    weights = jax.nn.softmax(jnp.einsum("btgrd,bsgd->bgrts", q, k))
    return jnp.einsum("bgrts,bsgd->btgrd", weights, v).reshape(-1, T, 16) @ p["o"]


def layer_norm(x, p, fast=True):
    mean = x.mean(-1, keepdims=True)
    variance = ((x**2).mean(-1, keepdims=True) - mean**2) if fast else x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p["scale"] + p["shift"]


def rms_norm(x, p):
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]


def transformer(p, tokens, norm=layer_norm, tied=False):
    """One pre-norm block with a fused SwiGLU feed-forward."""
    x = p["embedding"][tokens] + p["position"]
    x = x + attention(p["attention"], norm(x, p["n1"]))
    a, b = jnp.split(norm(x, p["n2"]) @ p["up"], 2, -1)
    x = norm(x + (jax.nn.silu(a) * b) @ p["down"], p["n3"])
    return x @ (p["embedding"].T if tied else p["out"])


TRANSFORMER = fill(
    {
        "embedding": np.zeros((7, D)), "position": np.zeros((T, D)),
        "attention": {"qkv": np.zeros((D, 3 * D)), "b": np.zeros(3 * D), "o": np.zeros((D, D))},
        "n1": {"scale": np.zeros(D), "shift": np.zeros(D)},
        "n2": {"scale": np.zeros(D), "shift": np.zeros(D)},
        "n3": {"scale": np.zeros(D), "shift": np.zeros(D)},
        "up": np.zeros((D, 2 * F)), "down": np.zeros((F, D)), "out": np.zeros((D, 7)),
    }
)  # fmt: skip
TOKENS = jnp.asarray(np.random.default_rng(2).integers(0, 7, (3, T)))
STRICT = {"attention": 2, "attention.neurons": 3, "attention.neurons_2": 3, "up": F}
BAKED = {**STRICT, "attention.residual_streams": D}


def switch(p, x, experts=4):
    """Top-1 routing [Fedus 2022] with a bias on the router."""
    logits = x @ p["router"] + p["router_bias"]
    chosen = jax.nn.one_hot(jnp.argmax(logits, -1), experts) * jax.nn.softmax(logits)
    h = jax.nn.relu(jnp.einsum("bd,edf->ebf", x, p["w1"]) + p["b1"][:, None])
    y = jnp.einsum("ebf,efd->ebd", h, p["w2"]) + p["b2"][:, None]
    return jnp.einsum("ebd,be->bd", y, chosen) @ p["out"]


def switch_without_bias(p, x):
    return switch({**p, "router_bias": jnp.zeros(4)}, x)


def top_two(p, x):
    logits = x @ p["router"] + p["router_bias"]
    best, which = jax.lax.top_k(logits, 2)
    share = jnp.einsum("bk,bke->be", jax.nn.softmax(best), jax.nn.one_hot(which, 4))
    h = jnp.tanh(jnp.einsum("bd,edf->ebf", x, p["w1"]) + p["b1"][:, None])
    return jnp.einsum("ebf,efd,be->bd", h, p["w2"], share) @ p["out"]


MOE = shapes(
    router=(5, 4), router_bias=(4,), w1=(4, 5, 6), b1=(4, 6), w2=(4, 6, 7), b2=(4, 7), out=(7, 3)
)
EXPERTS = {"router": 4, "w1": 6, "w2": 7}


def lstm_cell(p, state, x):
    h, c = state
    i, f, g, o = jnp.split(x @ p["wx"] + h @ p["wh"] + p["b"], 4, -1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def lstm_unrolled(p, x):
    state = (jnp.zeros((len(x), 6)), jnp.zeros((len(x), 6)))
    for t in range(x.shape[1]):
        state = lstm_cell(p, state, x[:, t])
    return state[0] @ p["out"]


def lstm_scanned(p, x):
    def step(state, x):
        state = lstm_cell(p, state, x)
        return state, state[0]

    zeros = jnp.zeros((len(x), 6))
    (h, _), hidden = jax.lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))
    return (h + hidden.mean(0)) @ p["out"]


LSTM = shapes(wx=(5, 24), wh=(6, 24), b=(24,), out=(6, 3))


def stacked(p, x):
    """Blocks of equal shape in one scan, recomputed in the backward pass."""

    @jax.checkpoint
    def block(x, w):
        return x + jax.nn.gelu(x @ w["a"] + w["b"]) @ w["c"], None

    return jax.lax.scan(block, x @ p["in"], p["layers"])[0] @ p["out"]


STACKED = fill(
    {
        "in": np.zeros((5, 8)),
        "layers": {"a": np.zeros((3, 8, 7)), "b": np.zeros((3, 7)), "c": np.zeros((3, 7, 8))},
        "out": np.zeros((8, 2)),
    }
)


def weight_norm(p, x, epsilon=1e-6):
    weights = p["v"] * p["g"] / jnp.sqrt((p["v"] ** 2).sum(0) + epsilon)
    return jax.nn.relu(x @ weights + p["b"]) @ p["o"]


WEIGHT_NORM = shapes(v=(5, 6), g=(6,), b=(6,), o=(6, 2))


def lora(p, x):
    return jax.nn.relu(x @ (p["w"] + p["a"] @ p["b"])) @ p["o"]


def branches(p, x):
    def relu(h):
        return jax.nn.relu(h @ p["a"])

    def tanh(h):
        return jnp.tanh(h @ p["b"])

    return jax.lax.cond(x.sum() > 0, relu, tanh, x @ p["w"]) @ p["o"]


def maxout(p, x):
    return (x @ p["w"] + p["b"]).reshape(-1, 6, 2).max(-1) @ p["o"]


def tied_autoencoder(p, x):
    return jax.nn.relu(x @ p["w"] + p["b"]) @ p["w"].T


def dropout(p, x):
    h = jax.nn.relu(x @ p["w"] + p["b"])
    return jnp.where(jax.random.bernoulli(jax.random.key(7), 0.7, h.shape), h / 0.7, 0.0) @ p["o"]


def unit_length(p, x):
    h = x @ p["w"] + p["b"]
    return h / jnp.sqrt((h**2).sum(-1, keepdims=True) + 1e-3) @ p["o"]


def dynamic_window(p, x):
    """A window of positions cut at run time, with all features."""
    h = jnp.tanh(x @ p["w"] + p["b"])
    start = jnp.argmax(x[0, :, 0]) // 2
    h = jax.lax.dynamic_update_slice(h, 2 * jax.lax.dynamic_slice_in_dim(h, start, 2, 1), (0, 0, 0))
    return h.mean(1) @ p["o"]


def stacked_views(p, x):
    """Two views of the hidden layer stacked, tiled, rolled and taken apart again."""
    h = jnp.tanh(x @ p["w"] + p["b"])
    views = jnp.stack([h, h**2], 1) * jnp.tile(x[:1, :1, None], (1, 2, 6))
    a, b = jnp.unstack(jnp.roll(views, 1, 1), axis=1)
    return jnp.concatenate([a, b], 1) @ jnp.tile(p["o"], (2, 1))


def fixed_indices(p, x):
    """Features permuted, repeated and picked by indices written into the function."""
    h = jnp.tanh(x @ p["w"] + p["b"])
    h = jnp.concatenate([h[:, [3, 0, -1, 1, 2, 4]], jnp.take(h, np.array([4, 0]), axis=1)], 1)
    columns = h.T[jnp.arange(8)[::-1][None]]
    return columns[0].T @ p["o"]


IMAGE = normal(2, 6, 6, 3)
TWO = shapes(w=(5, 6), b=(6,), o=(6, 2))
CASES = {
    "mlp": Case(mlp, layers(5, 8, 6, 3), normal(4, 5), {"0": 8, "1": 6}),
    "sigmoid mlp": Case(sigmoid_mlp, shapes(a=(5, 8), b=(8,), c=(8, 3)), normal(4, 5), {"a": 8}),
    "cnn, flattened": Case(
        flat_cnn,
        shapes(k1=(3, 3, 3, 5), b1=(5,), k2=(3, 3, 5, 4), b2=(4,), w=(4, 7), b=(7,), out=(7, 3)),
        normal(2, 4, 4, 3),
        {"k1": 5, "k2": 4, "w": 7},
    ),
    "resnet": Case(resnet, RESNET, IMAGE, {"stem": 6, "a1": 5, "b1": 7, "shortcut": 8}),
    "padded shortcut": Case(
        padded_shortcut,
        shapes(stem=(3, 3, 3, 4), a=(3, 3, 4, 5), b=(3, 3, 5, 7), out=(7, 3)),
        IMAGE,
        {"stem": 4, "a": 5, "b": 3},
    ),
    "pad with 2": Case(shifted_pad, shapes(a=(5, 6), b=(6,), c=(8, 2)), normal(4, 5), {"a": 6}),
    "mobilenet": Case(mobilenet, mobile_params(1), IMAGE, {"stem": 4, "expand": 6}),
    "depth multiplier": Case(
        mobilenet, mobile_params(2), IMAGE, {"stem": 4, "expand": 6, "depth": 2}
    ),
    "grouped": Case(
        grouped,
        shapes(a=(3, 3, 3, 12), b=(3, 3, 3, 8), out=(8, 3)),
        IMAGE,
        {"a": 4, "a.channels": 3, "b": 2},
    ),
    "shuffled groups": Case(
        shuffle,
        shapes(a=(3, 3, 3, 12), b=(3, 3, 3, 12), c=(3, 3, 3, 12), out=(12, 3)),
        IMAGE,
        {"a.channels": 3, "c": 3},
    ),
    "shuffled evenly": Case(
        lambda p, x: shuffle(p, x, groups=2),
        shapes(a=(3, 3, 3, 6), b=(3, 3, 3, 8), c=(3, 3, 4, 6), out=(6, 3)),
        IMAGE,
        {"a": 2, "a.channels": 3, "b": 2, "b.channels": 2, "c": 3},
    ),
    "squeeze and excite": Case(
        squeeze_excite,
        shapes(a=(3, 3, 3, 6), f1=(6, 4), f2=(4, 6), b2=(6,), c=(3, 3, 6, 5), out=(5, 3)),
        IMAGE,
        {"a": 6, "f1": 4, "c": 5},
    ),
    "densenet": Case(
        densenet,
        fill(
            {
                "a": np.zeros((3, 3, 3, 5)),
                "b": np.zeros((3, 3, 5, 4)),
                "n": statistics(9),
                "c": np.zeros((3, 3, 9, 3)),
                "out": np.zeros((12, 3)),
            }
        ),
        IMAGE,
        {"a": 5, "b": 4, "c": 3},
    ),
    "unet": Case(
        unet,
        shapes(down=(3, 3, 3, 5), middle=(3, 3, 5, 6), up=(2, 2, 6, 4), out=(1, 1, 9, 2)),
        IMAGE,
        {"down": 5, "middle": 6, "up": 4},
    ),
    "group norm": Case(
        group_norm,
        shapes(a=(3, 3, 3, 6), b=(6,), scale=(6,), bias=(6,), c=(3, 3, 6, 4), out=(4, 2)),
        IMAGE,
        {"a": 3, "c": 4},
    ),
    "attention": Case(
        attention,
        shapes(qkv=(D, 3 * D), b=(3 * D,), o=(D, D)),
        normal(3, T, D),
        {"qkv": 2, "qkv.neurons": 3, "qkv.neurons_2": 3},
    ),
    "grouped queries": Case(
        grouped_queries,
        shapes(q=(D, 16), k=(D, 8), v=(D, 8), o=(16, D)),
        normal(3, T, D),
        {"k": 2, "q": 2, "q.neurons": 2, "v": 4},
    ),
    "transformer": Case(transformer, TRANSFORMER, TOKENS, STRICT),
    "transformer, baked": Case(transformer, TRANSFORMER, TOKENS, BAKED, "baked"),
    "slow variance, baked": Case(
        lambda p, x: transformer(p, x, lambda x, p: layer_norm(x, p, fast=False)),
        TRANSFORMER,
        TOKENS,
        STRICT,
        "baked",
    ),
    "rms norm": Case(lambda p, x: transformer(p, x, rms_norm), TRANSFORMER, TOKENS, STRICT),
    "rms norm, baked": Case(
        lambda p, x: transformer(p, x, rms_norm), TRANSFORMER, TOKENS, BAKED, "baked"
    ),
    "tied": Case(lambda p, x: transformer(p, x, tied=True), TRANSFORMER, TOKENS, STRICT),
    "tied, baked": Case(
        lambda p, x: transformer(p, x, tied=True), TRANSFORMER, TOKENS, BAKED, "baked"
    ),
    "switch": Case(switch, MOE, normal(30, 5), EXPERTS),
    "top two experts": Case(top_two, MOE, normal(30, 5), EXPERTS),
    "switch without bias": Case(switch_without_bias, MOE, normal(30, 5), {"w1": 6, "w2": 7}),
    "lstm": Case(lstm_unrolled, LSTM, normal(3, 4, 5), {"wx": 6}),
    "lstm, scanned": Case(lstm_scanned, LSTM, normal(3, 4, 5), {"wx": 6}),
    "stacked layers": Case(stacked, STACKED, normal(4, 5), {"in": 8, "layers": 7}),
    "weight norm": Case(weight_norm, WEIGHT_NORM, normal(4, 5), {"v": 6}),
    "lora": Case(
        lora, shapes(w=(5, 6), a=(5, 3), b=(3, 6), o=(6, 2)), normal(4, 5), {"a.neurons": 3, "b": 6}
    ),
    "cond": Case(
        branches, shapes(w=(5, 6), a=(6, 7), b=(6, 7), o=(7, 2)), normal(4, 5), {"w": 6, "b": 7}
    ),
    "maxout": Case(maxout, shapes(w=(5, 12), b=(12,), o=(6, 2)), normal(4, 5), {"w": 6}),
    "tied autoencoder": Case(tied_autoencoder, shapes(w=(5, 6), b=(6,)), normal(4, 5), {"w": 6}),
    "dropout": Case(dropout, TWO, normal(4, 5), {"w": 6}),
    "unit length, baked": Case(unit_length, TWO, normal(4, 5), {"w": 6}, "baked"),
    "stacked views": Case(stacked_views, TWO, normal(4, 5), {"w": 6}),
    "fixed indices": Case(
        fixed_indices, shapes(w=(5, 6), b=(6,), o=(8, 2)), normal(4, 5), {"w": 2, "w.neurons": 4}
    ),
    "dynamic window": Case(dynamic_window, TWO, normal(3, 4, 5), {"w": 6}),
}
