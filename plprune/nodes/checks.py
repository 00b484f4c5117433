# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that say what to gate or keep."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from plprune.types import NodeGroups


def check_names(per_group: Mapping[str, Any], groups: NodeGroups, argument: str) -> None:
    """ValueError for a name that is no group, or an array that has not one entry per node."""
    unknown = sorted(set(per_group) - set(groups))
    if unknown:
        raise ValueError(f"{argument} names {unknown}; the groups are {list(groups)}.")
    for name, values in per_group.items():
        expected = (groups[name].size,)
        if jnp.shape(values) != expected:
            raise ValueError(
                f"{argument}[{name!r}] must have shape {expected}, got {jnp.shape(values)}."
            )


def concrete_keep(keep: Mapping[str, Any], groups: NodeGroups) -> dict[str, np.ndarray]:
    """`keep` as boolean host arrays.

    Raises:
      ValueError: a name or length is wrong, a group loses all its nodes, or a group that cannot be
        pruned loses any; the message has the reason.
    """
    check_names(keep, groups, "keep")
    concrete = {name: np.asarray(kept, bool) for name, kept in keep.items()}
    for name, kept in concrete.items():
        if not kept.any():
            raise ValueError(f"keep[{name!r}] must keep at least one of {kept.size} nodes, got 0.")
        if not kept.all() and not groups[name].prunable:
            raise ValueError(f"keep[{name!r}] must be all True: {groups[name].reason}.")
    return concrete
