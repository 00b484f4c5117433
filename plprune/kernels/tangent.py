"""The tangent kernel of any function, and its projections."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.kernels.contraction import contracted_kernel
from plprune.kernels.tiles import batch_size
from plprune.operators import flat_outputs
from plprune.types import Apply, Inputs, Params

METHODS = ("auto", "contraction")
_TILE_BYTES = 2**28  # Two tiles of Jacobians stay within half a gigabyte.


def tangent_kernel(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    other: Inputs | None = None,
    *,
    method: str = "auto",
    tile: int | None = None,
) -> Float[Array, "b c b2 c2"]:
    """K[i, r, j, s] = <d f_r(x_i)/d params, d f_s(x'_j)/d params>, without normalisation.

    Parameters of fewer than 32 bits are raised to float32 first and integer leaves are held
    constant. All products run at full precision.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c]; example i's output
        depends on example i's input only.
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      other: Second batch [b', ...] for the columns; the first one if None.
      method: "contraction" multiplies per-example Jacobians; "auto" takes the cheapest.
      tile: Examples per tile, 1 <= tile; chosen to bound memory if None. Static under jit.

    Raises:
      ValueError: an unknown method, a tile below 1, or inputs without a common batch axis.

    References:
      [Jacot 2018] for the kernel, [Novak 2022] for the costs of its algorithms.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}.")
    other = inputs if other is None else other
    function, leaves = differentiable(apply, params)
    outputs = jax.eval_shape(flat_outputs(function), leaves, inputs)
    rows, columns = batch_size(inputs), batch_size(other)
    if not leaves or outputs.shape[0] == 0 or outputs.shape[1] == 0:
        return jnp.zeros((rows, outputs.shape[1], columns, outputs.shape[1]), outputs.dtype)
    if tile is None:
        per_example = outputs.shape[1] * sum(p.size * p.dtype.itemsize for p in leaves)
        tile = max(1, _TILE_BYTES // max(per_example, 1))
    return contracted_kernel(function, leaves, inputs, other, min(tile, max(rows, columns)))


def projected_kernel(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    projection: Float[Array, " c"] | Float[Array, "c q"],
    other: Inputs | None = None,
    *,
    method: str = "auto",
    tile: int | None = None,
) -> Float[Array, "b b2"] | Float[Array, "b q b2 q"]:
    """The kernel of the outputs' combinations ``outputs @ projection``, shared by the batch.

    A `projection` [c] gives [b, b'], one [c, q] gives [b, q, b', q]. The cost is that of a model
    with q outputs. Random signs of variance 1/c estimate the trace over outputs, divided by c.

    Raises:
      ValueError: as `tangent_kernel`, or a projection whose first axis is not c.
    """
    projection = jnp.asarray(projection)
    directions = projection.reshape(projection.shape[0], -1)
    model = flat_outputs(apply)
    outputs = jax.eval_shape(model, params, inputs)
    if outputs.shape[1] != len(directions):
        raise ValueError(f"projection must have {outputs.shape[1]} rows, got {len(directions)}.")

    def projected(p, x):
        return jnp.matmul(model(p, x), directions, precision=jax.lax.Precision.HIGHEST)

    kernel = tangent_kernel(projected, params, inputs, other, method=method, tile=tile)
    return kernel[:, 0, :, 0] if projection.ndim == 1 else kernel


def differentiable(apply: Apply, params: Params) -> tuple[Apply, list[Array]]:
    """`apply` as a function of the list of real leaves alone, each raised to at least float32."""
    leaves, treedef = jax.tree.flatten(params)
    is_real = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]

    def function(real, inputs):
        real = iter(real)
        merged = [next(real) if r else leaf for r, leaf in zip(is_real, leaves, strict=True)]
        return apply(jax.tree.unflatten(treedef, merged), inputs)

    return function, [_at_least_float32(p) for p, r in zip(leaves, is_real, strict=True) if r]


def _at_least_float32(leaf):
    return jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))
