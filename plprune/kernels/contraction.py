"""The tangent kernel by contraction of per-example Jacobians: slow, general, the reference."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from plprune.kernels.tiles import over_tiles
from plprune.operators import flat_outputs
from plprune.types import Apply, Inputs, Params

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def contracted_kernel(
    apply: Apply, params: Params, inputs: Inputs, other: Inputs, tile: int
) -> Float[Array, "b c b2 c2"]:
    """K = J J'^T from the Jacobians of `tile` examples at a time.

    Costs b c backward passes for the rows and b' c for the columns of each tile of rows; holds
    the kernel and two tiles of ``tile * c * p`` numbers.
    """

    def rows(tile_inputs):
        left = example_jacobians(apply, params, tile_inputs)

        def columns(tile_other):
            return contract(example_jacobians(apply, params, tile_other), left)

        return jnp.moveaxis(over_tiles(columns, other, tile), (0, 1), (2, 3))

    return over_tiles(rows, inputs, tile)


def example_jacobians(apply: Apply, params: Params, inputs: Inputs) -> Params:
    """Per-example Jacobians: every leaf [..] of `params` becomes [b, c, ..]."""

    def one(example):
        batch = jax.tree.map(lambda a: a[None], example)
        return jax.jacrev(lambda p: flat_outputs(apply)(p, batch)[0])(params)

    return jax.vmap(one)(inputs)


def contract(left: PyTree, right: PyTree) -> Float[Array, "b c b2 c2"]:
    """Sum over the leaves of the products of two trees of Jacobians [b, c, ..]."""

    def leaf(a, b):
        a, b = (j.reshape(*j.shape[:2], -1) for j in (a, b))
        return _einsum("bcp,dep->bcde", a, b)

    return sum(jax.tree.leaves(jax.tree.map(leaf, left, right)))
