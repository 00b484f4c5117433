"""Loops over tiles of a batch, so that peak memory is the result plus one tile."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def batch_size(inputs: PyTree) -> int:
    """Length of the leading axis that all leaves of `inputs` share.

    Raises:
      ValueError: no leaves, a scalar leaf, or leading axes that differ.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"inputs must share one leading batch axis, got shapes {shapes}.")
    return shapes[0][0]


def over_tiles(function: Callable[[PyTree], Array], inputs: PyTree, tile: int) -> Array:
    """``function(inputs)`` computed `tile` examples at a time and joined along the leading axis.

    A batch that `tile` does not divide costs a second trace for its rest.
    """
    size = batch_size(inputs)
    count, rest = divmod(size, tile)
    if count <= 1 and rest == 0:
        return function(inputs)
    parts = []
    if count:
        stacked = jax.tree.map(
            lambda a: a[: count * tile].reshape(count, tile, *a.shape[1:]), inputs
        )
        mapped = jax.lax.map(function, stacked)
        parts.append(mapped.reshape(count * tile, *mapped.shape[2:]))
    if rest:
        parts.append(function(jax.tree.map(lambda a: a[count * tile :], inputs)))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)
