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
from plprune.storage.shrinking import Reduction, shrink_checkpoint
from plprune.storage.shrunk import Shrunk, load_shrunk, save_shrunk
from plprune.storage.stores import abstract_checkpoint

__all__ = [
    "Checkpoint",
    "Reduction",
    "Saver",
    "Shrunk",
    "abstract_checkpoint",
    "checkpoint_metadata",
    "load_checkpoint",
    "load_shrunk",
    "save_checkpoint",
    "save_shrunk",
    "shrink_checkpoint",
    "steps",
]
