# SPDX-License-Identifier: Apache-2.0
"""Data sets as arrays, standardised and cut into minibatches."""

from plprune.data.arrays import (
    Dataset,
    Sequences,
    Standardization,
    Text,
    check,
    sequences,
    standardization,
    standardize,
)
from plprune.data.batches import Masked, mask_tokens, minibatches
from plprune.data.loading import load, load_text
from plprune.data.prepared import prepare

__all__ = [
    "Dataset",
    "Masked",
    "Sequences",
    "Standardization",
    "Text",
    "check",
    "load",
    "load_text",
    "mask_tokens",
    "minibatches",
    "prepare",
    "sequences",
    "standardization",
    "standardize",
]
