"""Which examples make up each minibatch, as a function of a key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray


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
