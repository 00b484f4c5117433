# SPDX-License-Identifier: Apache-2.0
"""Which leaves are running statistics: by the kind of variable where the tree tells it."""

import sys
from collections import defaultdict
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from plprune.graph.paths import Keys, leaves_with_keys
from plprune.types import Buffer, Trained

STATISTICS = ("mean", "var")  # Flax's names for the running statistics of batch normalisation.
_MOVING_AVERAGE = {"average", "counter", "hidden"}  # Leaves of hk.ExponentialMovingAverage.


def statistic_leaves(
    params: Any,
    statistics: tuple[str, ...],
    contracted: Container[int],
    kinds: Mapping[Keys, type],
) -> frozenset[int]:
    """Positions of the leaves that masking and scores leave alone.

    Args:
      params: The parameters, or their shapes.
      statistics: Last keys of statistics in trees that do not tell kinds; names other than the
        default ones count in every tree.
      contracted: Positions of leaves that are factors of a contraction: these are weights.
      kinds: Keys of leaves -> class of variable, where it is known though the tree does not tell.
    """
    leaves = [x._replace(box=x.box or kinds.get(x.keys)) for x in leaves_with_keys(params)]
    siblings = defaultdict(set)
    for leaf in leaves:
        siblings[leaf.keys[:-1]].add(leaf.keys[-1:])
    averages = {keys for keys, last in siblings.items() if last == {(n,) for n in _MOVING_AVERAGE}}
    collections = any(leaf.keys[:1] == ("params",) and len(leaf.keys) > 1 for leaf in leaves)
    named_by_caller = set(statistics) - set(STATISTICS)

    def is_statistic(k, leaf):
        name = leaf.keys[-1] if leaf.keys else ""
        if name in named_by_caller:
            return True
        by_kind = _of_variable(leaf, k in contracted)
        if by_kind is not None:
            return by_kind
        if "batch_stats" in leaf.keys[:2] or leaf.keys[:-1] in averages:
            return True
        if collections and leaf.keys[0] == "params":
            return False
        return name in statistics and k not in contracted

    return frozenset(k for k, leaf in enumerate(leaves) if is_statistic(k, leaf))


def _of_variable(leaf, contracted):
    """Whether a variable of a known class holds a statistic; None for a leaf that is in none.

    A weight that is not trained, such as a frozen kernel, is masked like any other.
    """
    is_vector = sum(n > 1 for n in np.shape(leaf.value)) <= 1
    if leaf.box in (Trained, Buffer):
        return leaf.box is Buffer and is_vector and not contracted
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or leaf.box is None or not issubclass(leaf.box, nnx.Variable):
        return None
    if issubclass(leaf.box, nnx.Param | nnx.BatchStat):
        return issubclass(leaf.box, nnx.BatchStat)
    return is_vector and not contracted
