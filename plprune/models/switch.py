# SPDX-License-Identifier: Apache-2.0
"""The Switch transformer [Fedus 2022]: each position uses one expert of several."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer

from plprune.models.attention import Block, Embedding
from plprune.models.layers import Dense, check_sizes, normal, with_bias


class Balanced(NamedTuple):
    """Logits, and how unevenly each example's positions use the experts."""

    outputs: Float[Array, "b t v"]
    imbalance: Float[Array, " b"]  # Mean over layers; 1 if even, up to the number of experts.


class Switch(nnx.Module):
    """Feed-forward experts, of which the router's first choice is used, scaled by its probability.

    No expert has a capacity, so that examples stay independent; in exchange every expert is
    evaluated at every position, which costs `experts` times the operations of one. The router has
    a bias, zero at the start and unlike [Fedus 2022], so that experts can be pruned.
    """

    def __init__(self, features: int, width: int, experts: int, *, rngs: nnx.Rngs):
        check_sizes(width=width, experts=experts)
        # A bias of minus infinity is what closes an expert.
        self.router = Dense(features, experts, rngs=rngs)
        init = normal((2 / features) ** 0.5)
        self.hidden_kernel = nnx.Param(init(rngs.params(), (experts, features, width)))
        self.hidden_bias = nnx.Param(jnp.zeros((experts, width), jnp.float32))
        init = normal(width**-0.5)
        self.output_kernel = nnx.Param(init(rngs.params(), (experts, width, features)))
        self.output_bias = nnx.Param(jnp.zeros((experts, features), jnp.float32))

    def __call__(self, inputs: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Each position's output from its own expert."""
        probabilities = self.probabilities(inputs)
        chosen = _chosen(probabilities)
        hidden = jnp.einsum("btd,edf->btef", inputs, self.hidden_kernel[...])
        hidden = jax.nn.relu(with_bias(hidden, self.hidden_bias[...]))
        outputs = jnp.einsum("btef,efd->bted", hidden, self.output_kernel[...])
        outputs = with_bias(outputs, self.output_bias[...])
        return jnp.einsum("bted,bte->btd", outputs, chosen * probabilities)

    def probabilities(self, inputs: Float[Array, "b t d"]) -> Float[Array, "b t e"]:
        """The router's distribution over the experts."""
        return jax.nn.softmax(self.router(inputs), axis=-1)

    def imbalance(self, inputs: Float[Array, "b t d"]) -> Float[Array, " b"]:
        """E sum_i (fraction of positions routed to i) (mean probability of i), per example.

        The auxiliary loss of [Fedus 2022, eq. 4], over an example instead of a batch.
        """
        probabilities = self.probabilities(inputs)
        fraction = _chosen(probabilities).mean(1)
        return probabilities.shape[-1] * (fraction * probabilities.mean(1)).sum(-1)


class SwitchTransformer(nnx.Module):
    """Transformer whose feed-forward layers are `Switch` layers; LayerNorm before each part.

    Args:
      vocabulary: Number of tokens.
      positions: Longest sequence.
      features: Width of the stream.
      layers: Number of blocks.
      heads: Attention heads of each block.
      width: Hidden units of each expert.
      experts: Experts of each block.
      causal: Whether a position reads only earlier ones.
      dropout: See `Block`.
      rngs: Draws the weights: LeCun-normal, gain 2 before relu, embeddings of deviation .02.

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
        experts: int = 8,
        *,
        causal: bool = True,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.embedding = Embedding(vocabulary, positions, features, rngs=rngs)
        self.causal, self.layers = causal, layers
        options = {"norm": "pre", "dropout": dropout, "rngs": rngs}
        for i in range(layers):
            mlp = Switch(features, width, experts, rngs=rngs)
            setattr(self, f"block_{i}", Block(features, heads, mlp, **options))
        self.norm = nnx.LayerNorm(features, rngs=rngs)
        self.output = Dense(features, vocabulary, rngs=rngs)

    def __call__(self, tokens: Integer[Array | np.ndarray, "b t"]) -> Float[Array, "b t v"]:
        """Logits of every position."""
        return self.balanced(tokens).outputs

    def balanced(self, tokens: Integer[Array | np.ndarray, "b t"]) -> Balanced:
        """Logits and the imbalance to add to a training loss, about .01 of it."""
        tokens = jnp.asarray(tokens)
        mask = nnx.make_causal_mask(tokens, dtype=bool) if self.causal else None
        x, imbalance = self.embedding(tokens), []
        for i in range(self.layers):
            block = getattr(self, f"block_{i}")
            x = block.attend(x, mask)
            imbalance.append(block.mlp.imbalance(block.mlp_norm(x)))
            x = block.feed(x)
        return Balanced(self.output(self.norm(x)), jnp.stack(imbalance).mean(0))


def _chosen(probabilities):
    """One-hot vectors of the largest probabilities; the first of equal ones."""
    experts = probabilities.shape[-1]
    return jax.nn.one_hot(jnp.argmax(probabilities, axis=-1), experts, dtype=probabilities.dtype)
