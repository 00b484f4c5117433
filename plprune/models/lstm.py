# SPDX-License-Identifier: Apache-2.0
"""A recurrent language model of stacked LSTM layers [Hochreiter 1997]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer

from plprune.models.layers import Dense, Embed, check_sizes, fan_in_normal, with_bias


class LSTMLayer(nnx.Module):
    """One LSTM over the positions of a sequence, from a zero state.

    The four gates lie side by side in `cell.dense_i.kernel` [i, 4 h] and `cell.dense_h.kernel`
    [h, 4 h], in the order input, forget, candidate, output.
    """

    def __init__(self, in_features: int, hidden: int, *, unroll: bool, rngs: nnx.Rngs):
        check_sizes(hidden=hidden)
        self.cell = nnx.OptimizedLSTMCell(
            in_features, hidden, kernel_init=fan_in_normal(1.0), rngs=rngs
        )
        self.hidden, self.unroll = hidden, unroll

    def __call__(self, inputs: Float[Array, "b t i"]) -> Float[Array, "b t h"]:
        """The hidden state after every position."""
        zero = jnp.zeros((len(inputs), self.hidden), inputs.dtype)
        carry, outputs = (zero, zero), []
        if not self.unroll:
            return jax.lax.scan(self.cell, carry, inputs.swapaxes(0, 1))[1].swapaxes(0, 1)
        for position in range(inputs.shape[1]):
            carry, output = self.cell(carry, inputs[:, position])
            outputs.append(output)
        return jnp.concatenate([output[:, None] for output in outputs], axis=1)


class LSTMLanguageModel(nnx.Module):
    """Token embedding, LSTM layers `layer_0`, `layer_1`, ..., and logits for the next token.

    With vocabulary 10,000, embedding 400, hidden (1150, 1150, 400) and tied logits this is the
    AWD-LSTM of [Merity 2018], 24 million parameters, without its weight dropping.

    Args:
      vocabulary: Number of tokens.
      embedding: Size of a token's vector.
      hidden: Size of each layer's state.
      tied: Whether logits are products with the token embeddings, plus a bias, instead of an own
        `output`; needs hidden[-1] == embedding.
      dropout: Probability of dropping an input of a layer or of the output.
      unroll: Whether to write out the positions instead of scanning over them: slower to
        compile, but then tangent kernels and nodes see every use of a weight.
      rngs: Draws the weights: inputs LeCun-normal, recurrent ones orthogonal, embeddings
        of variance 1 / embedding, biases zero.

    Raises:
      ValueError: If a size is below 1 or does not fit, or dropout is outside [0, 1).
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 400,
        hidden: Sequence[int] = (1150, 1150, 400),
        *,
        tied: bool = False,
        dropout: float = 0.0,
        unroll: bool = False,
        rngs: nnx.Rngs,
    ):
        check_sizes(vocabulary=vocabulary, embedding=embedding, layers=len(hidden))
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
        if tied and hidden[-1] != embedding:
            raise ValueError(f"hidden must end in embedding = {embedding}, got {hidden[-1]}.")
        deviation = embedding**-0.5
        self.embedding = Embed(vocabulary, embedding, deviation=deviation, rngs=rngs)
        features = embedding
        self.layers = len(hidden)
        for i, size in enumerate(hidden):
            setattr(self, f"layer_{i}", LSTMLayer(features, size, unroll=unroll, rngs=rngs))
            features = size
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.output = None if tied else Dense(features, vocabulary, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(vocabulary, jnp.float32)) if tied else None

    def __call__(self, tokens: Integer[Array | np.ndarray, "b t"]) -> Float[Array, "b t v"]:
        """Logits of the token after each position."""
        x = self._dropped(self.embedding(jnp.asarray(tokens)))
        for i in range(self.layers):
            x = self._dropped(getattr(self, f"layer_{i}")(x))
        if self.bias is not None:
            return with_bias(self.embedding.attend(x), self.bias[...])
        return self.output(x)  # pyright: ignore[reportOptionalCall]

    def _dropped(self, x):
        return x if self.dropout is None else self.dropout(x)
