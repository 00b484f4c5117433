# SPDX-License-Identifier: Apache-2.0
"""Which nodes to keep, from one score per node and a budget."""

from collections.abc import Mapping
from fnmatch import fnmatch

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plprune.nodes.checks import check_names
from plprune.types import NodeGroups

BUDGETS = ("group", "global")


def keep_top(
    scores: Mapping[str, Float[Array, " _"]],
    groups: NodeGroups,
    keep_fraction: float | Float[Array, ""],
    *,
    budget: str = "group",
    round_to: int = 1,
    min_nodes: int = 1,
    exclude: tuple[str, ...] = (),
) -> dict[str, Bool[Array, " _"]]:
    """The nodes with the largest scores, as `mask`, `shrink` and `resize` take them.

    Ties go to the earlier node, and a score that is not a number ranks last. Works under jit, with
    traced scores.

    Args:
      scores: Group name -> one score per node, larger = keep. Groups that cannot be pruned are
        ignored, groups without scores are left alone.
      groups: From `find_nodes`.
      keep_fraction: Fraction of the nodes to keep, in (0, 1]; counts are rounded, halves up. An
        array, as from a schedule, is not checked.
      budget: "group" keeps the fraction of every group; "global" keeps it of all scored nodes
        together, comparing scores across groups.
      round_to: Counts are rounded up to a multiple of this, for the hardware's sake; a group
        that has fewer nodes keeps them all.
      min_nodes: Nodes that every group keeps at least.
      exclude: Names or patterns such as "encoder.*" of groups to leave alone.

    Returns:
      Group name -> [g] booleans, for the prunable groups that have scores and are not excluded.

    Raises:
      ValueError: an argument is out of range, a name is unknown, or a pattern matches nothing.
    """
    _check_options(keep_fraction, budget, round_to, min_nodes)
    check_names(scores, groups, "scores")
    excluded = _excluded(groups, exclude)
    ranked = {
        name: jnp.where(jnp.isnan(values), -jnp.inf, jnp.asarray(values, float))
        for name, values in scores.items()
        if groups[name].prunable and name not in excluded
    }
    if budget == "group":
        counts = {name: jnp.floor(keep_fraction * len(s) + 0.5) for name, s in ranked.items()}
    else:
        counts = _global_counts(ranked, keep_fraction, min_nodes)
    return {
        name: _ranks(values) < _allowed(counts[name], len(values), round_to, min_nodes)
        for name, values in ranked.items()
    }


def _check_options(keep_fraction, budget, round_to, min_nodes):
    if isinstance(keep_fraction, int | float) and not 0 < keep_fraction <= 1:
        raise ValueError(f"keep_fraction must lie in (0, 1], got {keep_fraction}.")
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {BUDGETS}, got {budget!r}.")
    for name, value in (("round_to", round_to), ("min_nodes", min_nodes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def _excluded(groups, patterns):
    excluded = set()
    for pattern in patterns:
        matching = {name for name in groups if fnmatch(name, pattern)}
        if not matching:
            raise ValueError(f"exclude names {pattern!r}; the groups are {list(groups)}.")
        excluded |= matching
    return excluded


def _ranks(values):
    """0 for the largest; equal values in order."""
    return jnp.argsort(jnp.argsort(-values)).astype(jnp.int32)


def _allowed(count, size, round_to, min_nodes):
    at_least = jnp.maximum(count, min_nodes)
    # An integer, as ranks are: the two are compared where dtypes may not be promoted, too.
    return jnp.minimum(jnp.ceil(at_least / round_to) * round_to, size).astype(jnp.int32)


def _global_counts(ranked, keep_fraction, min_nodes):
    """Nodes per group among the best of all; each group's best `min_nodes` come first."""
    if not ranked:
        return {}
    first = {name: jnp.where(_ranks(s) < min_nodes, jnp.inf, s) for name, s in ranked.items()}
    everything = jnp.concatenate(list(first.values()))
    number = jnp.floor(keep_fraction * len(everything) + 0.5)
    kept = _ranks(everything) < jnp.asarray(number).astype(jnp.int32)
    counts, start = {}, 0
    for name, values in first.items():
        counts[name] = kept[start : start + len(values)].sum()
        start += len(values)
    return counts
