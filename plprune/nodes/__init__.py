# SPDX-License-Identifier: Apache-2.0
"""Node groups of any function: found, gated, masked, and physically removed."""

from typing import TYPE_CHECKING

from plprune.nodes.closing import gate, mask
from plprune.nodes.cutting import expand, shrink
from plprune.nodes.discovery import find_nodes
from plprune.nodes.reconstruction import reconstruct
from plprune.nodes.resizing import resize
from plprune.nodes.selection import keep_top, node_flops
from plprune.nodes.targets import Target, keep_within
from plprune.nodes.unstacking import unstack

if TYPE_CHECKING:
    from plprune.nodes.functionals import shrink_functional
    from plprune.nodes.native import shrink_linen, shrink_model, widths
    from plprune.nodes.native_parts import native_groups, native_keep


def __getattr__(name: str):
    """Functions on Flax modules; Flax is imported only when they are used."""
    if name == "shrink_functional":
        from plprune.nodes.functionals import shrink_functional

        return shrink_functional
    if name in ("shrink_linen", "shrink_model", "widths"):
        from plprune.nodes import native

        return getattr(native, name)
    if name in ("native_groups", "native_keep"):
        from plprune.nodes import native_parts

        return getattr(native_parts, name)
    raise AttributeError(f"module 'plprune.nodes' has no attribute {name!r}")


__all__ = [
    "Target",
    "expand",
    "find_nodes",
    "gate",
    "keep_top",
    "keep_within",
    "mask",
    "native_groups",
    "native_keep",
    "node_flops",
    "reconstruct",
    "resize",
    "shrink",
    "shrink_functional",
    "shrink_linen",
    "shrink_model",
    "unstack",
    "widths",
]
