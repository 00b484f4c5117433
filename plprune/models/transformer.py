# SPDX-License-Identifier: Apache-2.0
"""Transformers: a bidirectional encoder and a causal language model."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer

from plprune.models.attention import Block, Embedding, FeedForward
from plprune.models.layers import Chain, Dense


class Encoder(nnx.Module):
    """BERT-style encoder with LayerNorm after each sum, and logits for every position.

    Every position reads every other one. With vocabulary 30,522, 512 positions, features 768, 12
    layers of 12 heads and width 3,072, all but `output` has 108,890,112 parameters: BERT-base
    [Devlin 2019] without segment embeddings and pooler.

    Args:
      vocabulary: Number of tokens.
      positions: Longest sequence.
      features: Width of the stream.
      layers: Number of blocks.
      heads: Attention heads of each block.
      width: Hidden units of each feed-forward layer.
      dropout: See `Block`.
      rngs: Draws the weights: LeCun-normal, gain 2 before gelu, embeddings of deviation .02.

    Raises:
      ValueError: If a size is below 1, heads do not divide features, or dropout is not in [0, 1).
    """

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        features: int = 768,
        layers: int = 12,
        heads: int = 12,
        width: int = 3072,
        *,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.embedding = Embedding(vocabulary, positions, features, rngs=rngs)
        self.embedding_norm = nnx.LayerNorm(features, rngs=rngs)
        options = {"norm": "post", "dropout": dropout, "rngs": rngs}
        blocks = [
            Block(features, heads, FeedForward(features, width, rngs=rngs), **options)
            for _ in range(layers)
        ]
        self.encoder = Chain("block", blocks)
        self.output = Dense(features, vocabulary, rngs=rngs)

    def __call__(self, tokens: Integer[Array | np.ndarray, "b t"]) -> Float[Array, "b t v"]:
        """Logits of every position."""
        x = self.embedding_norm(self.embedding(jnp.asarray(tokens)))
        return self.output(self.encoder(x))


class CausalTransformer(nnx.Module):
    """GPT-style language model: LayerNorm before each part, a position reads only earlier ones.

    With `tied` logits, vocabulary 50,257, 1,024 positions, features 768, 12 layers of 12 heads and
    width 3,072 it has the 124,439,808 parameters of the small GPT-2 [Radford 2019].

    Args:
      vocabulary: Number of tokens.
      positions: Longest sequence.
      features: Width of the stream.
      layers: Number of blocks.
      heads: Attention heads of each block.
      width: Hidden units of each feed-forward layer.
      tied: Whether logits are products with the token embeddings instead of an own `output`.
      dropout: See `Block`.
      rngs: Draws the weights: LeCun-normal, gain 2 before gelu, embeddings of deviation .02.

    Raises:
      ValueError: If a size is below 1, heads do not divide features, or dropout is not in [0, 1).
    """

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        features: int = 768,
        layers: int = 12,
        heads: int = 12,
        width: int = 3072,
        *,
        tied: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.embedding = Embedding(vocabulary, positions, features, rngs=rngs)
        options = {"norm": "pre", "dropout": dropout, "rngs": rngs}
        blocks = [
            Block(features, heads, FeedForward(features, width, rngs=rngs), **options)
            for _ in range(layers)
        ]
        self.decoder = Chain("block", blocks)
        self.norm = nnx.LayerNorm(features, rngs=rngs)
        self.output = None if tied else Dense(features, vocabulary, rngs=rngs)

    def __call__(self, tokens: Integer[Array | np.ndarray, "b t"]) -> Float[Array, "b t v"]:
        """Logits of the token after each position."""
        tokens = jnp.asarray(tokens)
        x = self.decoder(self.embedding(tokens), nnx.make_causal_mask(tokens, dtype=bool))
        x = self.norm(x)
        return self.embedding.token.attend(x) if self.output is None else self.output(x)
