"""The dense tangent kernel of any function: whole, projected and tiled."""

from plprune.kernels.tangent import projected_kernel, tangent_kernel, traced_kernel

__all__ = ["projected_kernel", "tangent_kernel", "traced_kernel"]
