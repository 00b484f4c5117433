# SPDX-License-Identifier: Apache-2.0
"""Reshapes as products of factors: every row-major reshape merges and splits whole factors."""

from itertools import accumulate, pairwise
from operator import mul
from typing import NamedTuple


class Refinement(NamedTuple):
    """Common refinement of two shapes; dimensions of size 1 own no factor."""

    sizes: tuple[int, ...]  # Sizes of the factors, row-major.
    old: tuple[tuple[int, ...], ...]  # Per dimension of the old shape: its factors.
    new: tuple[tuple[int, ...], ...]


def common_factors(old: tuple[int, ...], new: tuple[int, ...]) -> Refinement | None:
    """The coarsest factors of which both shapes are products; None where sizes do not divide.

    A reshape of [6, 4] to [2, 12] has the factors (2, 3, 4): 6 = 2 x 3 and 12 = 3 x 4.
    """
    if 0 in old or 0 in new:
        return None
    cuts = sorted({c for shape in (old, new) for c in accumulate(reversed(shape), mul)} | {1})
    sizes = []
    for smaller, larger in pairwise(cuts):
        if larger % smaller:
            return None
        sizes.append(larger // smaller)
    sizes = tuple(reversed(sizes))
    return Refinement(sizes, _owned(old, sizes), _owned(new, sizes))


def _owned(shape, sizes):
    """Factors of each dimension: consecutive ones whose product is its size."""
    owned, factor = [], 0
    for size in shape:
        own, product = [], 1
        while product < size:
            own.append(factor)
            product *= sizes[factor]
            factor += 1
        owned.append(tuple(own))
    return tuple(owned)
