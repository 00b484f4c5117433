# SPDX-License-Identifier: Apache-2.0
"""Gates and masks: nodes scaled or closed without changing any shape."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from plprune.graph.paths import leaf_is
from plprune.nodes.checks import check_names, keep_masks, vector
from plprune.nodes.matching import axes_of, edit_leaves
from plprune.nodes.scaling import consuming, factors_by_leaf, over_leaf, scale_slices
from plprune.types import Keep, NodeGroups


def gate(params: PyTree, groups: NodeGroups, gates: Mapping[str, Any]) -> PyTree:
    """Parameters with which every node's output counts gate times.

    Scales the slices that are contracted against the node's output, so the function is the one
    that multiplies the node wherever it is read, whatever the activation. At gates 0 it equals the
    masked function; dL/dgate is the sum of p * dL/dp over these slices.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them.
      groups: From `find_nodes`.
      gates: Group name -> [g] multipliers, possibly traced. Groups left out stay as they are.

    Raises:
      ValueError: an unknown name, a wrong length, gates that are no real numbers, a group that no
        gate on parameters can scale, with the reason, or a tree without the parameters (as `mask`).
    """
    factors = factors_by_leaf(groups, checked_gates(gates, groups), consuming)
    return scale_slices(params, groups, factors)


def checked_gates(gates: Mapping[str, Any], groups: NodeGroups) -> dict[str, Array]:
    """Gates as arrays; ValueError as `gate`."""
    check_names(gates, groups, "gates")
    for name in gates:
        if not groups[name].gateable:
            raise ValueError(f"gates[{name!r}]: {groups[name].reason}.")
    return {
        name: jnp.asarray(vector(values, f"gates[{name!r}]", groups[name].size))
        for name, values in gates.items()
    }


def mask(params: PyTree, groups: NodeGroups, keep: Keep) -> PyTree:
    """Parameters whose closed nodes are exactly zero; `shrink` with `resize` is the same function.

    All slices of closed nodes become zero, but for running statistics (see `find_nodes`), integers,
    keys and what the function divides by (eigenvalues of a state space), which stay; those of a
    router's bias, where one closes an expert, become minus infinity. The tree that comes back has
    the caller's own containers.

    Args:
      params: The parameters that the groups were found on, or any tree that contains them, with the
        same keys in containers of any class.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans or exact 0 and 1; traced ones must be booleans by type. False
        closes. Groups left out stay open.

    Raises:
      ValueError: an unknown name, an entry of `keep` that is neither booleans nor exact 0 and 1, a
        wrong length, a group that cannot be pruned; no sub-tree with the leaves of the parameters,
        or of a collection of them, which is named by the first path missing; a leaf of another
        shape, or one outside the parameters whose shape depends on the nodes.
    """
    masks = keep_masks(keep, groups)
    for name, kept in masks.items():
        if not groups[name].prunable and not _all_open(kept):
            raise ValueError(f"keep[{name!r}] cannot close nodes: {groups[name].reason}.")
    closings = defaultdict(list)
    for name, kept in masks.items():
        for member in groups[name].members:
            if not groups.is_statistic(member.path):
                value = groups.closed_values.get((name, member.path), 0)
                if value is not None:
                    closings[member.path].append((member, kept, value))
    touched = axes_of(groups, masks)
    return edit_leaves(params, groups, lambda p, x: _closed(x, closings[p]), touched=touched)


def _all_open(kept):
    """Whether all nodes stay open; a traced array might close some."""
    return isinstance(kept, np.ndarray) and bool(kept.all())


def _closed(leaf, closings):
    if not closings or not leaf_is(leaf, jnp.inexact):
        return leaf
    leaf = jnp.asarray(leaf)
    for member, kept, value in closings:
        stays = over_leaf(jnp.asarray(kept), member, leaf, elsewhere=True)
        leaf = jnp.where(stays, leaf, jnp.asarray(value, leaf.dtype))
    return leaf
