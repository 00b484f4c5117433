# SPDX-License-Identifier: Apache-2.0
"""Which nodes to keep, from one score per node and a budget."""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from plprune.nodes.checks import as_patterns, check_fraction, check_names, vector
from plprune.types import NodeGroups

BUDGETS = ("group", "global")


def keep_top(
    scores: Mapping[str, Any],
    groups: NodeGroups,
    keep_fraction: ArrayLike,
    *,
    budget: str = "group",
    round_to: int = 1,
    min_nodes: int = 1,
    exclude: str | tuple[str, ...] = (),
) -> dict[str, Bool[Array, " _"]]:
    """The nodes with the largest scores, as `mask`, `shrink` and `resize` take them.

    Ties go to the earlier node, and a score that is not a number ranks last. Works under jit, with
    traced scores.

    Args:
      scores: Group name -> one real number per node, larger = keep: an array or a list. Groups that
        cannot be pruned are ignored, groups without scores are left alone.
      groups: From `find_nodes`.
      keep_fraction: Fraction of the nodes to keep, in (0, 1]; counts are rounded, halves up. A
        traced array, as from a schedule, is not checked.
      budget: "group" keeps the fraction of every group; "global" keeps it of all scored nodes
        together, comparing scores across groups.
      round_to: Counts are rounded up to a multiple of this, for the hardware's sake; a group
        that has fewer nodes keeps them all.
      min_nodes: Nodes that every group keeps at least.
      exclude: Names or patterns such as "encoder.*" of groups to leave alone.

    Returns:
      Group name -> [g] booleans, for the prunable groups that have scores and are not excluded.

    Raises:
      ValueError: an argument is out of range, a name is unknown, scores are no real numbers, or a
        pattern matches nothing.
    """
    _check_options(keep_fraction, budget, round_to, min_nodes)
    check_names(scores, groups, "scores")
    excluded = _excluded(groups, exclude)
    ranked = _comparable(
        {
            name: vector(values, f"scores[{name!r}]", groups[name].size)
            for name, values in scores.items()
            if groups[name].prunable and name not in excluded
        }
    )
    if budget == "group":
        counts = {name: jnp.floor(keep_fraction * len(s) + 0.5) for name, s in ranked.items()}
    else:
        counts = _global_counts(ranked, keep_fraction, min_nodes)
    return {
        name: _ranks(values) < _allowed(counts[name], len(values), round_to, min_nodes)
        for name, values in ranked.items()
    }


def _comparable(scores):
    """Scores as floats of which what is not a number is the least.

    Where numbers are known but wider than floats are here (float64 without x64, large integers),
    their ranks among all stand for them, since rounding would make ties.
    """
    known = all(isinstance(values, np.ndarray) for values in scores.values())
    if known and any(values.dtype.itemsize > 4 for values in scores.values()):
        scores = _ranks_among_all(scores)
    floats = {name: jnp.asarray(values, float) for name, values in scores.items()}
    return {n: jnp.where(jnp.isnan(values), -jnp.inf, values) for n, values in floats.items()}


def _ranks_among_all(scores):
    everything = np.concatenate([np.asarray(v, np.longdouble) for v in scores.values()])
    distinct = np.unique(everything[~np.isnan(everything)])

    def rank(values):
        values = np.asarray(values, np.longdouble)
        return np.where(np.isnan(values), np.nan, np.searchsorted(distinct, values))

    return {name: rank(values) for name, values in scores.items()}


def _check_options(keep_fraction, budget, round_to, min_nodes):
    check_fraction(keep_fraction, "keep_fraction")
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {BUDGETS}, got {budget!r}.")
    for name, value in (("round_to", round_to), ("min_nodes", min_nodes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def _excluded(groups, patterns):
    excluded = set()
    for pattern in as_patterns(patterns):
        matching = {name for name in groups if name == pattern or fnmatch(name, pattern)}
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
