# SPDX-License-Identifier: Apache-2.0
"""The one table of primitives: what is not in it is refused by its name."""

from plprune.graph.entries import Primitives
from plprune.graph.rules import (
    arithmetic,
    branches,
    contracting,
    custom,
    folding,
    grouping,
    indexing,
    loops,
    moving,
    placing,
    scattering,
    slicing,
    stacking,
)

FAMILIES = {
    "arithmetic": arithmetic.ENTRIES,  # Entry by entry: add, exp, select_n.
    "moving": moving.ENTRIES,  # Axes go elsewhere: transpose, broadcast_in_dim, reshape.
    "placing": placing.ENTRIES,  # On other devices: sharding_constraint, reshard.
    "stacking": stacking.ENTRIES,  # Pieces put together: concatenate, stack, pad.
    "slicing": slicing.ENTRIES,  # Positions taken in order: slice, split, rev.
    "folding": folding.ENTRIES,  # Axes summed or compared: reduce_sum, argmax, cumsum, sort.
    "contracting": contracting.ENTRIES,  # Products added up: dot_general, convolutions, svd.
    "grouping": grouping.ENTRIES,  # Rows in groups, multiplied each by its own: ragged_dot_general.
    "indexing": indexing.ENTRIES,  # Positions looked up: gather.
    "scattering": scattering.ENTRIES,  # Positions written: scatter, scatter-add.
    "loops": loops.ENTRIES,  # Bodies run again and again: scan, while.
    "branches": branches.ENTRIES,  # Bodies of which one is run: cond.
    "custom": custom.ENTRIES,  # Functions with derivative rules of their own.
}
PRIMITIVES = Primitives(FAMILIES)
