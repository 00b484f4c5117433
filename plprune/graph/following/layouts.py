# SPDX-License-Identifier: Apache-2.0
"""How the entries of an array lie: each axis as a product of factors of three kinds.

A factor is the axis that is followed (the batch, a channel), or one along which all entries are
known to be equal, or any other. Merging and splitting axes regroups factors and loses nothing.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby, pairwise
from math import prod
from operator import mul
from typing import NamedTuple

FOLLOWED, SAME, OWN = "followed", "same", "own"


class Factor(NamedTuple):
    """Part of an axis, row-major within it."""

    size: int  # Never 1: an axis of size 1 has no factors.
    kind: str


Axis = tuple[Factor, ...]
Layout = tuple[Axis, ...]  # One entry per axis of the array.


def uniform_layout(shape: Iterable[int], kind: str) -> Layout:
    """All axes of one kind."""
    return tuple(() if size == 1 else (Factor(size, kind),) for size in shape)


def places(layout: Layout) -> list[int]:
    """The axes that hold the followed one, or a part of it."""
    return [d for d, axis in enumerate(layout) if any(f.kind == FOLLOWED for f in axis)]


def length(axis: Axis) -> int:
    """Number of entries along an axis."""
    return prod(factor.size for factor in axis)


def aligned(axes: Sequence[Axis]) -> list[tuple[int, tuple[str, ...]]] | None:
    """Common factors of axes of equal length, each with its kind in every one of them.

    An axis of length 1 counts as constant. None where lengths do not divide, or the followed axis
    would be split.
    """
    lengths = set(map(length, axes))
    if len(lengths) == 1 and all(len(axis) == 1 for axis in axes):
        return [(axes[0][0].size, tuple(axis[0].kind for axis in axes))]
    if 0 in lengths:
        return [(0, (OWN,) * len(axes))]
    longest = max(lengths)
    merged = [_merged(a if length(a) == longest else (Factor(longest, SAME),)) for a in axes]
    if longest == 1:
        return []
    cuts = sorted({c for axis in merged for c in _cuts(f.size for f in axis)} | {1})
    if any(larger % smaller for smaller, larger in pairwise(cuts)):
        return None
    factors = [(larger // smaller, smaller) for smaller, larger in pairwise(cuts)][::-1]
    kinds = [_kinds(axis, factors) for axis in merged]
    if None in kinds:
        return None
    return _joined(
        [(size, own) for (size, _), own in zip(factors, zip(*kinds, strict=True), strict=True)]
    )


def regrouped(layout: Layout, shape: Sequence[int]) -> Layout | None:
    """The layout after a row-major reshape; None where it would split the followed axis."""
    if 0 in shape:
        return uniform_layout(shape, OWN)
    return _dealt(_merged([factor for axis in layout for factor in axis]), shape)


def _dealt(flat, shape):
    """Row-major factors dealt out to axes; a factor that reaches over an edge is cut there."""
    rest, axes = list(flat), []
    for size in shape:
        axis, needed = [], size
        while needed > 1:
            factor = rest.pop(0)
            if needed % factor.size == 0:
                axis.append(factor)
                needed //= factor.size
                continue
            if factor.kind == FOLLOWED or factor.size % needed:
                return None
            axis.append(Factor(needed, factor.kind))
            rest.insert(0, Factor(factor.size // needed, factor.kind))
            needed = 1
        axes.append(tuple(axis))
    return tuple(axes)


def _merged(factors):
    """Neighbours of one kind as one factor, the followed one apart."""
    merged = []
    for factor in factors:
        if merged and merged[-1].kind == factor.kind != FOLLOWED:
            factor = Factor(merged.pop().size * factor.size, factor.kind)
        merged.append(factor)
    return merged


def _cuts(sizes):
    """Products of the last factors: where one of them ends."""
    return accumulate(reversed(list(sizes)), mul)


def _kinds(axis, factors):
    """The kind of each common factor (size, entries below it); None if a followed one is split."""
    ends = list(accumulate((f.size for f in reversed(axis)), mul))[::-1]
    kinds = []
    for size, below in factors:
        factor = next(
            f for f, end in zip(reversed(axis), reversed(ends), strict=True) if below < end
        )
        if factor.kind == FOLLOWED and factor.size != size:
            return None
        kinds.append(factor.kind)
    return kinds


def _joined(parts):
    """Neighbouring factors whose kinds agree as one, the followed one apart."""
    joined = []
    for kinds, run in groupby(parts, key=lambda part: part[1]):
        sizes = [size for size, _ in run]
        whole = [prod(sizes)] if FOLLOWED not in kinds else sizes
        joined += [(size, kinds) for size in whole]
    return joined
