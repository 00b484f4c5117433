# SPDX-License-Identifier: Apache-2.0
"""Models with stacked layers, from every library that stacks them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx
from zoo import fill, normal, shapes

from plprune.functional import functional, paired

LAYERS = 3
TOKENS = normal(2, 4, 6).astype(jnp.float32)


class Stack(NamedTuple):
    """A function whose layers are stacked."""

    apply: Any
    params: Any
    inputs: Any


class Block(nnx.Module):
    """Attention and a feed-forward layer, each with a residual."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 6, 8, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(6, 5, rngs=rngs), nnx.Linear(5, 6, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(x)
        return x + self.down(nnx.gelu(self.up(x)))


class Stacked(nnx.Module):
    """Blocks for `nnx.scan`, along any axis of their arrays."""

    def __init__(self, rngs, axis=0):
        self.axis = axis
        make = nnx.vmap(lambda key: Block(nnx.Rngs(key)), out_axes=axis)
        self.blocks = make(jax.random.split(jax.random.key(0), LAYERS))
        self.enter, self.leave = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        step = nnx.scan(
            lambda x, block: block(x), in_axes=(nnx.Carry, self.axis), out_axes=nnx.Carry
        )
        return self.leave(step(self.enter(x), self.blocks)).mean(1)


class Normalised(nnx.Module):
    """Stacked layers with running statistics."""

    def __init__(self, rngs):
        self.blocks = nnx.vmap(lambda key: NormalisedBlock(nnx.Rngs(key)))(
            jax.random.split(jax.random.key(0), LAYERS)
        )
        self.leave = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        step = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.leave(step(x, self.blocks)).mean(1)


class NormalisedBlock(nnx.Module):
    def __init__(self, rngs):
        self.up, self.down = nnx.Linear(6, 5, rngs=rngs), nnx.Linear(5, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.relu(self.norm(self.up(x))))


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        x = x + linen.MultiHeadDotProductAttention(2, qkv_features=8, name="attention")(x, x)
        return x + linen.Dense(6, name="down")(linen.gelu(linen.Dense(5, name="up")(x))), None


class LinenStacked(linen.Module):
    """Blocks under remat and `linen.scan`."""

    @linen.compact
    def __call__(self, x):
        block = linen.remat(LinenBlock, prevent_cse=False)
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        x, _ = linen.scan(block, length=LAYERS, **axes)(name="blocks")(x, None)
        return linen.Dense(2, name="leave")(x).mean(1)


def scanned(p, x):
    """Layers of a plain scan: weights halved in advance, in reverse, and what each layer gives."""

    def layer(x, w):
        x = x + jnp.tanh(x @ w["up"] + w["bias"]) @ w["down"]
        return x, x.mean(-1)

    halves = {"up": p["up"] / 2, "down": p["down"], "bias": p["bias"]}
    x, means = jax.lax.scan(layer, x @ p["enter"], halves, reverse=True)
    return jnp.concatenate([x @ p["leave"], means.T], -1)


def grouped(p, x):
    """Groups of layers in a loop of loops, from one stack; the last layer stands apart."""

    def layer(x, w):
        return x + jnp.tanh(x @ w["up"]) @ w["down"], None

    first = jax.tree.map(lambda a: a[:-1].reshape(2, 2, *a.shape[1:]), p["layers"])
    x, _ = jax.lax.scan(lambda x, w: jax.lax.scan(layer, x, w), x, first)
    last = jax.tree.map(lambda a: a[-1], p["layers"])
    return layer(x, last)[0] @ p["leave"]


def of_module(module, inputs):
    """An NNX module with random leaves."""
    parts = functional(module)
    trees = tuple(fill(tree, dtype="float32") for tree in (parts.params, parts.state))
    return Stack(paired(parts), trees, inputs)


def linen_stack():
    variables = jax.eval_shape(LinenStacked().init, jax.random.key(0), TOKENS)
    return Stack(LinenStacked().apply, fill(variables, dtype="float32"), TOKENS)


def haiku_stack():
    """Layers under Haiku's `layer_stack`."""
    hk = pytest.importorskip("haiku")

    def layer(x):
        return x + hk.Linear(6, name="down")(jnp.tanh(hk.Linear(5, name="up")(x)))

    def stacked(x):
        layers = hk.experimental.layer_stack(LAYERS, name="blocks")(layer)
        return hk.Linear(2, name="leave")(layers(x))

    model, rows = hk.without_apply_rng(hk.transform(stacked)), TOKENS[:, 0]
    params = jax.eval_shape(model.init, jax.random.key(0), rows)
    return Stack(model.apply, fill(params, dtype="float32"), rows)


LEAVES = {"up": (LAYERS, 6, 5), "bias": (LAYERS, 5), "down": (LAYERS, 5, 6)}
ENDS = {"enter": (4, 6), "leave": (6, 2)}
FIVE = {"up": (5, 6, 5), "down": (5, 5, 6)}
STACKS = {
    "nnx": lambda: of_module(nnx.eval_shape(lambda: Stacked(nnx.Rngs(0))), TOKENS),
    "nnx, last axis": lambda: of_module(nnx.eval_shape(lambda: Stacked(nnx.Rngs(0), -1)), TOKENS),
    "normalised": lambda: of_module(nnx.eval_shape(lambda: Normalised(nnx.Rngs(0))), TOKENS),
    "linen": linen_stack,
    "haiku": haiku_stack,
    "scan": lambda: Stack(scanned, shapes(**LEAVES, **ENDS), normal(3, 4)),
    "groups": lambda: Stack(
        grouped, {"layers": shapes(**FIVE), **shapes(leave=(6, 2))}, normal(3, 6)
    ),
}
