# SPDX-License-Identifier: Apache-2.0
"""The dense tangent kernel of any function: whole, traced, projected, per leaf, per node."""

from plprune.kernels.parts import leaf_kernels, node_kernels
from plprune.kernels.sharding import sharded_kernel
from plprune.kernels.tangent import projected_kernel, tangent_kernel, traced_kernel

__all__ = [
    "leaf_kernels",
    "node_kernels",
    "projected_kernel",
    "sharded_kernel",
    "tangent_kernel",
    "traced_kernel",
]
