# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks: embeddings, attention, feed-forward layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from plprune.models.layers import Dense, Embed, check_sizes, fan_in_normal, one_of

NORMS = ("pre", "post")


class Embedding(nnx.Module):
    """Sum of a token's and its position's vectors, both normal with deviation .02 at the start."""

    def __init__(self, vocabulary: int, positions: int, features: int, *, rngs: nnx.Rngs):
        check_sizes(vocabulary=vocabulary, positions=positions, features=features)
        self.token = Embed(vocabulary, features, deviation=0.02, rngs=rngs)
        self.position = Embed(positions, features, deviation=0.02, rngs=rngs)
        self.limit = positions

    def __call__(self, tokens: Integer[Array, "b t"]) -> Float[Array, "b t d"]:
        """Vectors of tokens; ValueError for more than `positions` of them."""
        length = tokens.shape[1]
        if length > self.limit:
            raise ValueError(f"tokens must have at most {self.limit} positions, got {length}.")
        return self.token(tokens) + self.position(jnp.arange(length))[None]


class FeedForward(nnx.Module):
    """gelu between `hidden` and `output`."""

    def __init__(self, features: int, width: int, *, rngs: nnx.Rngs):
        self.hidden = Dense(features, width, gain=2.0, rngs=rngs)
        self.output = Dense(width, features, rngs=rngs)

    def __call__(self, inputs: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Each position on its own."""
        return self.output(jax.nn.gelu(self.hidden(inputs)))


def dot_product_attention(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h v"],
    mask: Bool[Array, "b _ t s"] | None = None,
    **_: object,
) -> Float[Array, "b t h v"]:
    """Attention in the type of its arguments; JAX's own takes every softmax in float32."""
    logits = jnp.einsum("bthk,bshk->bhts", query, key) / query.shape[-1] ** 0.5
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    return jnp.einsum("bhts,bshv->bthv", jax.nn.softmax(logits, axis=-1), value)


class Block(nnx.Module):
    """Self-attention and a feed-forward layer, each added to the stream it reads.

    LayerNorm comes before each ("pre" [Xiong 2020]) or after each sum ("post" [Vaswani 2017]).

    Args:
      features: Width d of the stream.
      heads: Number of attention heads; divides d.
      mlp: The feed-forward module, under this name.
      norm: "pre" or "post".
      dropout: Probability of dropping an entry of what is added to the stream.
      rngs: Draws the weights.

    Raises:
      ValueError: If heads do not divide features, dropout is outside [0, 1), or norm is unknown.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        mlp: Callable[[Array], Array],
        *,
        norm: str,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        check_block(features, heads, dropout)
        self.norm_first = one_of("norm", norm, NORMS) == "pre"
        self.attention = nnx.MultiHeadAttention(
            heads,
            features,
            decode=False,
            kernel_init=fan_in_normal(1.0),
            attention_fn=dot_product_attention,
            rngs=rngs,
        )
        self.attention_norm = nnx.LayerNorm(features, rngs=rngs)
        self.mlp = mlp
        self.mlp_norm = nnx.LayerNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(
        self, inputs: Float[Array, "b t d"], mask: Bool[Array, "b 1 t t"] | None = None
    ) -> Float[Array, "b t d"]:
        """The stream after both additions; a mask is True where a position may be read."""
        return self.feed(self.attend(inputs, mask))

    def attend(
        self, inputs: Float[Array, "b t d"], mask: Bool[Array, "b 1 t t"] | None = None
    ) -> Float[Array, "b t d"]:
        """The stream after attention."""
        return self._added(inputs, lambda x: self.attention(x, mask=mask), self.attention_norm)

    def feed(self, inputs: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The stream after the feed-forward layer."""
        return self._added(inputs, self.mlp, self.mlp_norm)

    def _added(self, stream, layer, norm):
        change = layer(norm(stream) if self.norm_first else stream)
        change = change if self.dropout is None else self.dropout(change)
        return stream + change if self.norm_first else norm(stream + change)


def check_block(features: int, heads: int, dropout: float) -> None:
    """Raise ValueError unless heads divide features and dropout lies in [0, 1)."""
    check_sizes(features=features, heads=heads)
    if features % heads:
        raise ValueError(f"heads must divide features = {features}, got {heads}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
