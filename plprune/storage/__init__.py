# SPDX-License-Identifier: Apache-2.0
"""Shrunk models and checkpoints on disk."""

from plprune.storage.checkpoints import (
    Checkpoint,
    Saver,
    checkpoint_metadata,
    load_checkpoint,
    save_checkpoint,
    steps,
)
from plprune.storage.shrunk import Shrunk, load_shrunk, save_shrunk

__all__ = [
    "Checkpoint",
    "Saver",
    "Shrunk",
    "checkpoint_metadata",
    "load_checkpoint",
    "load_shrunk",
    "save_checkpoint",
    "save_shrunk",
    "steps",
]
