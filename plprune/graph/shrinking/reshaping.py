# SPDX-License-Identifier: Apache-2.0
"""Reshapes as products of factors: every row-major reshape merges and splits whole factors."""

from itertools import accumulate, pairwise
from math import prod
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
        return _around_zero(old, new)
    cuts = sorted({c for shape in (old, new) for c in accumulate(reversed(shape), mul)} | {1})
    sizes = []
    for smaller, larger in pairwise(cuts):
        if larger % smaller:
            return None
        sizes.append(larger // smaller)
    sizes = tuple(reversed(sizes))
    return Refinement(sizes, _owned(old, sizes), _owned(new, sizes))


def _around_zero(old, new):
    """Of arrays without entries, where all that changes are axes after the first of size 0."""
    first = old.index(0)
    same = old[: first + 1] == new[: first + 1]
    if not same or prod(old[first + 1 :]) != prod(new[first + 1 :]):
        return None
    rest = common_factors(old[first + 1 :], new[first + 1 :])
    if rest is None:
        return None
    heads = [d for d in range(first + 1) if old[d] != 1]
    own = [(heads.index(d),) if d in heads else () for d in range(first + 1)]
    sizes = (*(old[d] for d in heads), *rest.sizes)
    before, after = (
        tuple(tuple(f + len(heads) for f in factors) for factors in side)
        for side in (rest.old, rest.new)
    )
    return Refinement(sizes, (*own, *before), (*own, *after))


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
