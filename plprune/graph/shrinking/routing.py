# SPDX-License-Identifier: Apache-2.0
"""Axes that are compared, not summed: experts close by minus infinity on the router's bias."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from plprune.graph.shrinking.atoms import Label
from plprune.graph.shrinking.fills import Fills
from plprune.graph.shrinking.labels import Labels

Closed = Mapping[int, frozenset[Label]]  # Input position -> atoms closed there in its own way.
_NONE: Closed = MappingProxyType({})


def fill_routed(
    labels: Labels, masked: Sequence[int], *, baked: bool, held: Closed = _NONE
) -> tuple[Fills, Closed]:
    """`Fills`, with the atoms of routers closed by minus infinity where that makes them removable.

    An argmax or top_k cannot pass over a zero, but it passes over minus infinity, and so does a
    softmax. Masking can put it into a bias that is added right before. Each parameter with such
    an atom is tried in turn, small ones first, until the atoms are removable.
    """
    before = labels.atoms.copy()
    fills = Fills(labels, masked, baked=baked, held=held)
    candidates = fills.compared & ranked_atoms(labels)
    closed: dict[int, frozenset[Label]] = {}
    for leaf in sorted(masked, key=lambda k: len(labels.shape(labels.graph.inputs[k]))):
        variable = labels.graph.inputs[leaf]
        vectors = labels[variable]
        own = frozenset().union(*map(before.members, vectors)) & candidates
        if own:
            labels.atoms = before.copy()
            trial = Fills(labels, masked, baked=baked, closed={**closed, leaf: own}, held=held)
            if own.isdisjoint(labels.atoms.pinned):
                closed[leaf] = own
                candidates -= own
                fills = trial
                continue
            labels.atoms = before.copy()
            fills = Fills(labels, masked, baked=baked, closed=closed, held=held)
    return fills, closed


def ranked_atoms(labels: Labels) -> set[Label]:
    """Atoms along the axes of which an argmax or top_k takes the winners."""
    found = set()
    for vector in labels.ranked:
        found |= labels.atoms.occurring(vector)
    return found
