# SPDX-License-Identifier: Apache-2.0
"""Which examples make up each minibatch, and which tokens are masked, as functions of a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, PRNGKeyArray

from plprune.compilation import compile_once


@compile_once("key")
def minibatches(
    num_examples: int, batch_size: int, num_steps: int, *, key: PRNGKeyArray
) -> Int[Array, "steps batch"]:
    """Indices of the examples of each step, for indexing or `lax.scan`.

    Each epoch is a fresh permutation cut into whole batches, so that no example appears twice in
    it; the num_examples % batch_size left over sit that epoch out. The first steps do not
    depend on `num_steps`, so a longer run continues a shorter one.

    Args:
      num_examples: Size n of the training set.
      batch_size: Examples per step, in [1, n]; n gives full batches in random order.
      num_steps: Number of steps, at least 1.
      key: Draws the permutations.

    Raises:
      ValueError: If a number is outside its range.
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"batch_size must lie in [1, {num_examples}], got {batch_size}.")
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    per_epoch = num_examples // batch_size

    def epoch(i):
        order = jax.random.permutation(jax.random.fold_in(key, i), num_examples)
        return order[: per_epoch * batch_size].reshape(per_epoch, batch_size)

    batches = jax.vmap(epoch)(jnp.arange(-(-num_steps // per_epoch)))
    return batches.reshape(-1, batch_size)[:num_steps]


class Masked(NamedTuple):
    """Inputs and labels of masked-token training."""

    inputs: Int[Array, "b t"]
    labels: Int[Array, "b t"]  # The original token at chosen positions, -1 at the others.


def mask_tokens(
    tokens: Integer[Array | np.ndarray, "b t"],
    *,
    key: PRNGKeyArray,
    num_tokens: int,
    rate: float = 0.15,
) -> Masked:
    """Positions chosen at random and hidden, for an encoder to restore [Devlin 2019].

    Of the chosen positions 80 % show the mask, whose token is `num_tokens` (the model's vocabulary
    must have one token more), 10 % a random token, and 10 % the original.

    Args:
      tokens: Integers in [0, num_tokens).
      key: Draws the positions and what they show.
      num_tokens: Size of the vocabulary without the mask, at least 1.
      rate: Probability of choosing a position, in (0, 1].

    Raises:
      ValueError: If `num_tokens` or `rate` is outside its range.
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be at least 1, got {num_tokens}.")
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], got {rate}.")
    tokens = jnp.asarray(tokens, jnp.int32)  # Bytes have no room for the mask.
    key_choice, key_shown, key_token = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(key_choice, rate, tokens.shape)
    shown = jax.random.uniform(key_shown, tokens.shape)
    drawn = jax.random.randint(key_token, tokens.shape, 0, num_tokens, jnp.int32)
    hidden = jnp.where(shown < 0.8, num_tokens, jnp.where(shown < 0.9, drawn, tokens))
    return Masked(jnp.where(chosen, hidden, tokens), jnp.where(chosen, tokens, -1))
