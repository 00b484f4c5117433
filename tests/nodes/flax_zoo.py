# SPDX-License-Identifier: Apache-2.0
"""Tiny Flax modules, NNX and Linen, that join the architectures whose nodes must be found."""

import jax
import jax.numpy as jnp
from flax import linen, nnx


class Convolutions(nnx.Module):
    """Depthwise with a multiplier, grouped, squeeze-and-excite, dense concatenation, U-Net skip."""

    def __init__(self, rngs):
        self.stem, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.depth = nnx.Conv(4, 8, (3, 3), feature_group_count=4, rngs=rngs)
        self.squeeze, self.excite = nnx.Linear(8, 3, rngs=rngs), nnx.Linear(3, 8, rngs=rngs)
        self.dense = nnx.Conv(8, 4, (1, 1), rngs=rngs)
        self.grouped = nnx.Conv(12, 6, (3, 3), strides=2, feature_group_count=2, rngs=rngs)
        self.up = nnx.ConvTranspose(6, 3, (2, 2), strides=(2, 2), rngs=rngs)
        self.head = nnx.Conv(7, 2, (1, 1), rngs=rngs)

    def __call__(self, x):
        first = nnx.relu(self.norm(self.stem(x)))
        x = nnx.relu(self.depth(first))
        gate = nnx.sigmoid(self.excite(nnx.silu(self.squeeze(x.mean((1, 2))))))
        x = x * gate[:, None, None]
        x = nnx.relu(self.grouped(jnp.concatenate([x, nnx.relu(self.dense(x))], -1)))
        return self.head(jnp.concatenate([nnx.relu(self.up(x)), first], -1))


class LinenConvolutions(linen.Module):
    """The same pieces, with an identity and a projection shortcut and a flattened head."""

    @linen.compact
    def __call__(self, x):
        first = linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3))(x))
        x = first + linen.Conv(4, (3, 3))(linen.relu(linen.Conv(5, (3, 3))(linen.relu(first))))
        x = linen.relu(linen.Conv(4, (3, 3), feature_group_count=4)(x))
        gate = linen.sigmoid(linen.Dense(4)(linen.relu(linen.Dense(3)(x.mean((1, 2))))))
        x = x * gate[:, None, None]
        x = jnp.concatenate([x, linen.relu(linen.Conv(2, (1, 1))(x))], -1)
        short = linen.Conv(6, (1, 1), strides=2)(x)
        x = short + linen.Conv(6, (3, 3), strides=2, feature_group_count=2)(x)
        x = linen.relu(linen.ConvTranspose(3, (2, 2), strides=(2, 2))(linen.relu(x)))
        x = jnp.concatenate([x, first], -1)
        return linen.Dense(2)(linen.gelu(linen.Dense(5)(x.reshape(len(x), -1))))


class Decoder(nnx.Module):
    """Causal and cross attention, RMSNorm, fused SwiGLU, logits from the tied embedding."""

    def __init__(self, rngs):
        options = {"decode": False, "rngs": rngs}
        self.embed = nnx.Embed(7, 6, rngs=rngs)
        self.norms = nnx.List([nnx.RMSNorm(6, rngs=rngs) for _ in range(3)])
        self.own = nnx.MultiHeadAttention(2, 6, 8, **options)
        self.cross = nnx.MultiHeadAttention(2, 6, 4, **options)
        self.up = nnx.Linear(6, 10, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(5, 6, rngs=rngs)

    def __call__(self, tokens):
        x = memory = self.embed(tokens)
        x = x + self.own(self.norms[0](x), mask=nnx.make_causal_mask(tokens))
        x = x + self.cross(self.norms[1](x), nnx.tanh(memory))
        gate, up = jnp.split(self.up(self.norms[2](x)), 2, -1)
        return self.embed.attend(x + self.down(nnx.silu(gate) * up))


class LinenDecoder(linen.Module):
    """Causal attention and fused SwiGLU between RMSNorms, GELU after LayerNorm, tied logits."""

    @linen.compact
    def __call__(self, tokens):
        embed = linen.Embed(7, 6)
        x, mask = embed(tokens), linen.make_causal_mask(tokens)
        x = x + linen.MultiHeadDotProductAttention(2, qkv_features=8)(linen.RMSNorm()(x), mask=mask)
        gate, up = jnp.split(linen.Dense(10, use_bias=False)(linen.RMSNorm()(x)), 2, -1)
        x = x + linen.Dense(6)(linen.silu(gate) * up)
        x = x + linen.Dense(6)(linen.gelu(linen.Dense(5)(linen.LayerNorm()(x))))
        return embed.attend(x)


class Unrolled(nnx.Module):
    """An LSTM cell, one with fused gates, and a GRU cell, unrolled over the positions."""

    def __init__(self, rngs):
        self.cells = nnx.List(
            [
                nnx.LSTMCell(3, 4, rngs=rngs),
                nnx.OptimizedLSTMCell(4, 5, rngs=rngs),
                nnx.GRUCell(5, 6, rngs=rngs),
            ]
        )
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        zeros = [jnp.zeros((len(x), n), x.dtype) for n in (4, 5, 6)]
        carries = [(zeros[0], zeros[0]), (zeros[1], zeros[1]), zeros[2]]
        for t in range(x.shape[1]):
            y = x[:, t]
            for k, cell in enumerate(self.cells):
                carries[k], y = cell(carries[k], y)
        return self.head(y)


class LinenUnrolled(linen.Module):
    """An LSTM cell with fused gates and a GRU cell, unrolled over the positions."""

    @linen.compact
    def __call__(self, x):
        cells = linen.OptimizedLSTMCell(5), linen.GRUCell(6)
        carries = [cell.initialize_carry(jax.random.key(0), x[:, 0].shape) for cell in cells]
        for t in range(x.shape[1]):
            y = x[:, t]
            for k, cell in enumerate(cells):
                carries[k], y = cell(carries[k], y)
        return linen.Dense(2)(y)


class LinenMLP(linen.Module):
    """Two hidden layers."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.gelu(linen.Dense(5)(linen.tanh(linen.Dense(6)(x)))))


class LinenEncoder(linen.Module):
    """Embedding with positions, pre-norm attention and GELU feed-forward, mean over positions."""

    heads: int = 2
    inner: int = 8
    hidden: int = 5

    @linen.compact
    def __call__(self, tokens):
        position = self.param("position", linen.initializers.normal(), (tokens.shape[1], 6))
        x = linen.Embed(7, 6, name="embed")(tokens) + position
        attention = linen.MultiHeadDotProductAttention(
            self.heads, qkv_features=self.inner, name="attention"
        )
        x = x + attention(linen.LayerNorm()(x))
        h = linen.gelu(linen.Dense(self.hidden, name="up")(linen.LayerNorm()(x)))
        return linen.Dense(2)(linen.LayerNorm()(x + linen.Dense(6)(h)).mean(1))


class LinenSwitch(linen.Module):
    """A residual mixture of four experts; the router's first choice is used [Fedus 2022]."""

    @linen.compact
    def __call__(self, x):
        def weight(name, *shape):
            return self.param(name, linen.initializers.normal(), shape)

        x = linen.Dense(6)(x)
        shares = linen.softmax(linen.Dense(4, name="router")(linen.RMSNorm()(x)))
        chosen = jax.nn.one_hot(jnp.argmax(shares, -1), 4, dtype=x.dtype) * shares
        h = jnp.einsum("bd,edf->ebf", x, weight("up", 4, 6, 5)) + weight("bias", 4, 5)[:, None]
        y = jnp.einsum("ebf,efd->ebd", linen.relu(h), weight("down", 4, 5, 6))
        return linen.Dense(2)(x + jnp.einsum("be,ebd->bd", chosen, y))
