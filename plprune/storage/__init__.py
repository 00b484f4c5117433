"""Shrunk models and checkpoints on disk."""

from plprune.storage.checkpoints import Checkpoint, Saver, load_checkpoint, save_checkpoint, steps
from plprune.storage.shrunk import Shrunk, load_shrunk, save_shrunk

__all__ = [
    "Checkpoint",
    "Saver",
    "Shrunk",
    "load_checkpoint",
    "load_shrunk",
    "save_checkpoint",
    "save_shrunk",
    "steps",
]
