# SPDX-License-Identifier: Apache-2.0
"""Equinox modules whose layers keep sizes beside their arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from plprune.functional import functional_equinox


def filled(build, *args):
    """What `build` makes of a key, a module or (module, state), in float32 with random leaves.

    Initialisation would be compiled. In the state, all numbers are positive.
    """
    model = eqx.filter_eval_shape(build, jax.random.key(0), *args)
    module, state = model if isinstance(model, tuple) else (model, None)
    parts, draws = functional_equinox(module, state=state), np.random.default_rng(0)

    def weight(leaf):
        fan = np.prod(leaf.shape[1:])
        return jnp.asarray(draws.normal(size=leaf.shape) / np.sqrt(fan), jnp.float32)

    def held(leaf):
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        values = draws.uniform(0.5, 1.5, leaf.shape) if is_float else 1
        return jnp.full(leaf.shape, values, jnp.float32 if is_float else leaf.dtype)

    return parts.rebuild(jax.tree.map(weight, parts.params), jax.tree.map(held, parts.state))


def drawn(key):
    """Keys, one at a time."""
    while True:
        key, one = jax.random.split(key)
        yield one


class UNet(eqx.Module):
    """Down and up again with a bridge; every kind of convolution; GroupNorm."""

    stem: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    depth: eqx.nn.Conv2d
    point: eqx.nn.Conv2d
    down: eqx.nn.Conv2d
    up: eqx.nn.ConvTranspose2d
    merge: eqx.nn.Conv2d
    head: eqx.nn.Conv2d

    def __init__(self, key, width=8):
        keys, nn = drawn(key), eqx.nn
        self.stem = nn.Conv2d(3, width, 3, padding=1, key=next(keys))
        self.norm = nn.GroupNorm(width // 2, width)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width, key=next(keys))
        self.point = nn.Conv2d(width, width, 1, key=next(keys))
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2, key=next(keys))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2, key=next(keys))
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1, groups=2, key=next(keys))
        self.head = nn.Conv2d(width, 2, 1, key=next(keys))

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.stem(x)))
        x = jax.nn.relu(self.point(self.depth(x)))
        y = self.up(jax.nn.relu(self.down(x)))
        return self.head(jax.nn.gelu(self.merge(jnp.concatenate([x, y]))))


class Attention(eqx.Module):
    """A pre-norm block: attention of unlike sizes, and a feed-forward part."""

    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    feed: eqx.nn.MLP
    head: eqx.nn.Linear

    def __init__(self, key, width=6):
        keys = drawn(key)
        self.norm = eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(
            4, width, qk_size=6, vo_size=4, use_query_bias=True, dropout_p=0.1, key=next(keys)
        )
        self.feed = eqx.nn.MLP(width, width, 10, 2, activation=jax.nn.gelu, key=next(keys))
        self.head = eqx.nn.Linear(width, 2, key=next(keys))

    def __call__(self, x, key=None):
        y = jax.vmap(self.norm)(x)
        x = x + self.attention(y, y, y, key=key)
        return jax.vmap(self.head)(x + jax.vmap(self.feed)(x))


class Normalised(eqx.Module):
    """Running statistics and dropout."""

    layers: list
    dropout: eqx.nn.Dropout
    norm: eqx.nn.BatchNorm
    offset: jax.Array

    def __init__(self, key, mode="batch"):
        first, second = jax.random.split(key)
        self.layers = [eqx.nn.Linear(4, 8, key=first), eqx.nn.Linear(8, 3, key=second)]
        self.norm = eqx.nn.BatchNorm(8, "rows", momentum=0.5, mode=mode)
        self.dropout = eqx.nn.Dropout(0.5)
        self.offset = jnp.ones(3, jnp.int32)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.layers[0](x), state)
        return self.layers[1](self.dropout(jnp.tanh(x), key=key)) + self.offset, state


class Recurrent(eqx.Module):
    """A scanned cell and a projection; what the cell's state starts from is written in the code."""

    cell: eqx.Module
    head: eqx.nn.Linear

    def __init__(self, key, cell=eqx.nn.GRUCell):
        first, second = jax.random.split(key)
        self.cell, self.head = cell(3, 6, key=first), eqx.nn.Linear(6, 2, key=second)

    def __call__(self, x):
        start = jnp.zeros(self.cell.hidden_size, x.dtype)
        if isinstance(self.cell, eqx.nn.LSTMCell):
            start = (start, start)
        last, _ = jax.lax.scan(lambda h, row: (self.cell(row, h), None), start, x)
        return self.head(last[0] if isinstance(last, tuple) else last)
