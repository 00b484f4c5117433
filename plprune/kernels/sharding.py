# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel with its rows spread over devices."""

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from plprune.independence import batch_size, check_independent
from plprune.kernels.tangent import tangent_kernel
from plprune.types import Apply, Inputs, Params


def sharded_kernel(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    other: Inputs | None = None,
    *,
    mesh: Mesh,
    axis: str,
    method: str = "auto",
    tile: int | None = None,
    independent: bool = False,
) -> Float[Array, "b c b2 c2"]:
    """`tangent_kernel`, its rows computed by and left on the devices of one mesh axis.

    Every device holds the parameters and the columns' examples and computes its own rows; nothing
    is communicated. Symmetry is not used: on d devices each does 2/d of a single device's work.
    With several processes (`jax.distributed`) pass global arrays and a mesh of all their devices.

    Args:
      apply: As for `tangent_kernel`.
      params: Tree of arrays, the same on all devices.
      inputs: Tree of arrays [b, ...]; the size of `axis` must divide b.
      other: Second batch for the columns; the first one if None.
      mesh: Devices, from `jax.make_mesh`.
      axis: Name of the mesh axis for the rows.
      method: As for `tangent_kernel`.
      tile: As for `tangent_kernel`.
      independent: As for `tangent_kernel`.

    Raises:
      ValueError: as `tangent_kernel`, an unknown axis, or a b that its size does not divide.
    """
    if axis not in mesh.shape:
        raise ValueError(f"axis must be one of the mesh's {tuple(mesh.shape)}, got {axis!r}.")
    size, devices = batch_size(inputs), mesh.shape[axis]
    if size % devices:
        raise ValueError(f"inputs must split evenly over {devices} devices, got {size} examples.")

    for batch in (inputs,) if other is None else (inputs, other):
        check_independent(apply, params, batch, independent=independent)
    # A device sees part of the batch: what is checked is the whole.
    options = {"method": method, "tile": tile, "independent": True}

    def rows(params, own, columns):
        return tangent_kernel(apply, params, own, columns, **options)

    whole, split = PartitionSpec(), PartitionSpec(axis)
    # With the check of varying axes on, derivatives in the replicated parameters would be summed
    # over the devices; here every device differentiates for itself.
    mapped = jax.shard_map(
        rows, mesh=mesh, in_specs=(whole, split, whole), out_specs=split, check_vma=False
    )
    return mapped(params, inputs, inputs if other is None else other)
