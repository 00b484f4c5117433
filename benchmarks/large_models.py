# SPDX-License-Identifier: Apache-2.0
"""Models as shapes: a ResNet-50, a ViT-L/16 and a Llama-3-8B, of which no weight is allocated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Shaped(NamedTuple):
    """A model of a number of layers, as functions of shapes."""

    apply: Callable[[Any, Any], jax.Array]
    params: Callable[[int], Any]  # Number of layers -> shapes.
    inputs: jax.ShapeDtypeStruct  # Of one example.
    layers: int
    outputs: int  # Per example.


def _shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def _attention(x, q, k, v, out, *, causal):
    """Tokens [n, t, d]; heads of keys and values may be fewer than those of queries."""
    queries, keys, values = (jnp.einsum("ntd,dhe->nthe", x, w) for w in (q, k, v))
    groups = queries.shape[2] // keys.shape[2]
    keys, values = (jnp.repeat(a, groups, axis=2) for a in (keys, values))
    mixed = jax.nn.dot_product_attention(queries, keys, values, is_causal=causal)
    return jnp.einsum("nthe,hed->ntd", mixed, out)


def _normalised(x, scale):
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def llama(params, tokens):
    """The logits after the last token; rotations of positions, which cost nothing, are left out."""
    x = params["embedding"][tokens]
    for p in params["layers"]:
        x += _attention(_normalised(x, p["n1"]), p["q"], p["k"], p["v"], p["o"], causal=True)
        y = _normalised(x, p["n2"])
        x += (jax.nn.silu(y @ p["gate"]) * (y @ p["up"])) @ p["down"]
    return _normalised(x[:, -1], params["norm"]) @ params["head"]


def _llama_params(layers):
    d, hidden, vocabulary = 4096, 14336, 128256
    layer = {
        "q": _shape(d, 32, 128), "k": _shape(d, 8, 128), "v": _shape(d, 8, 128),
        "o": _shape(32, 128, d), "gate": _shape(d, hidden), "up": _shape(d, hidden),
        "down": _shape(hidden, d), "n1": _shape(d), "n2": _shape(d),
    }  # fmt: skip
    ends = {"embedding": _shape(vocabulary, d), "head": _shape(d, vocabulary), "norm": _shape(d)}
    return ends | {"layers": [layer] * layers}


def vit(params, images):
    """Patches of 16 x 16, a class token; norms without means, which changes no size."""
    n = len(images)
    patches = images.reshape(n, 14, 16, 14, 16, 3).swapaxes(2, 3).reshape(n, 196, 768)
    first = jnp.broadcast_to(params["class"], (n, 1, 1024))
    x = jnp.concatenate([first, patches @ params["patch"]], axis=1) + params["positions"]
    for p in params["layers"]:
        x += _attention(_normalised(x, p["n1"]), p["q"], p["k"], p["v"], p["o"], causal=False)
        x += jax.nn.gelu(_normalised(x, p["n2"]) @ p["up"] + p["b1"]) @ p["down"] + p["b2"]
    return _normalised(x[:, 0], params["norm"]) @ params["head"]


def _vit_params(layers):
    d, heads = 1024, _shape(1024, 16, 64)
    layer = {
        "q": heads, "k": heads, "v": heads, "o": _shape(16, 64, d), "n1": _shape(d),
        "n2": _shape(d), "up": _shape(d, 4 * d), "b1": _shape(4 * d), "down": _shape(4 * d, d),
        "b2": _shape(d),
    }  # fmt: skip
    ends = {
        "class": _shape(1, 1, d), "patch": _shape(768, d), "positions": _shape(197, d),
        "norm": _shape(d), "head": _shape(d, 1000),
    }  # fmt: skip
    return ends | {"layers": [layer] * layers}


def _convolved(x, p, stride=1):
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x, p["w"], (stride, stride), "SAME", dimension_numbers=dimensions
    )
    return y * p["scale"] + p["shift"]


def resnet50(params, images):
    """Bottlenecks in evaluation mode, where batch norms are scales and shifts."""
    x = jax.nn.relu(_convolved(images, params["stem"], 2))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for i, stage in enumerate(params["stages"]):
        for j, p in enumerate(stage):
            stride = 2 if i and not j else 1
            y = jax.nn.relu(_convolved(x, p["reduce"]))
            y = _convolved(jax.nn.relu(_convolved(y, p["middle"], stride)), p["expand"])
            x = jax.nn.relu(y + (x if "skip" not in p else _convolved(x, p["skip"], stride)))
    return jnp.mean(x, axis=(1, 2)) @ params["head"] + params["bias"]


def _convolution(side, channels, width):
    return {
        "w": _shape(side, side, channels, width),
        "scale": _shape(width),
        "shift": _shape(width),
    }


def _resnet_params(_):
    stages, channels = [], 64
    for depth, width in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        stage = []
        for j in range(depth):
            block = {
                "reduce": _convolution(1, channels, width),
                "middle": _convolution(3, width, width),
                "expand": _convolution(1, width, 4 * width),
            }
            stage.append(block if j else block | {"skip": _convolution(1, channels, 4 * width)})
            channels = 4 * width
        stages.append(stage)
    ends = {"head": _shape(2048, 1000), "bias": _shape(1000)}
    return ends | {"stem": _convolution(7, 3, 64), "stages": stages}


IMAGES = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((1, 512), jnp.int32)
MODELS = {
    "ResNet-50, 224 x 224": Shaped(resnet50, _resnet_params, IMAGES, 1, 1000),
    "ViT-L/16, 224 x 224": Shaped(vit, _vit_params, IMAGES, 24, 1000),
    "Llama-3-8B, 512 tokens": Shaped(llama, _llama_params, TOKENS, 32, 128256),
}
