"""Node groups of any function: found, gated, masked, and physically removed."""

from plprune.nodes.closing import gate, mask
from plprune.nodes.cutting import expand, shrink
from plprune.nodes.discovery import find_nodes
from plprune.nodes.resizing import resize

__all__ = ["expand", "find_nodes", "gate", "mask", "resize", "shrink"]
