# SPDX-License-Identifier: Apache-2.0
"""Vectors whole on every device, matrices by rows: what passes between them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree


class Rows(NamedTuple):
    """How the rows of a matrix lie on devices: consecutive parts of one height.

    For use within `jax.shard_map` over all axes of the mesh; on one device, with no axes, all
    methods hand back what they are given.
    """

    axes: tuple[str, ...]  # Of the mesh; empty on one device.
    count: int  # Devices.

    @property
    def place(self) -> Int[Array, ""]:
        """Which part is this device's."""
        if not self.axes:
            return jnp.zeros((), jnp.int32)
        return jax.lax.axis_index(self.axes)

    def own(self, vectors: Float[Array, "n q"]) -> Float[Array, "m q"]:
        """This device's rows."""
        if not self.axes:
            return vectors
        height = len(vectors) // self.count
        return jax.lax.dynamic_slice_in_dim(vectors, self.place * height, height)

    def gathered(self, own: Float[Array, "m ..."]) -> Float[Array, "n ..."]:
        """All devices' rows, on every device."""
        return jax.lax.all_gather(own, self.axes, tiled=True) if self.axes else own

    def summed(self, tree: PyTree) -> PyTree:
        """The sum over devices, on every device."""
        return jax.lax.psum(tree, self.axes) if self.axes else tree

    def sent(self, array: Float[Array, "..."], sender: Int[Array, ""]) -> Float[Array, "..."]:
        """One device's array, on every device."""
        if not self.axes:
            return array
        return jax.lax.psum(jnp.where(self.place == sender, array, 0), self.axes)


def rows_over(mesh: Mesh | None, size: int) -> Rows:
    """The rows of `size` examples over all devices of a mesh; one device if None.

    Raises:
      ValueError: a number of devices that does not divide `size`.
    """
    if mesh is None:
        return Rows((), 1)
    if size % mesh.size:
        raise ValueError(f"inputs must split evenly over {mesh.size} devices, got {size} examples.")
    return Rows(tuple(mesh.axis_names), mesh.size)


def on_rows(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """``function(whole, split)`` run by every device on its rows of `split`; the result is whole.

    Args:
      function: Of a tree that all devices have and of a tree of arrays by rows.
      mesh: Over all of whose axes the rows lie; None for a plain call.
    """
    if mesh is None:
        return function
    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    # With the check of varying axes on, derivatives in what is whole would be summed over devices.
    return jax.shard_map(
        function, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False
    )
