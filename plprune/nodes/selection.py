# SPDX-License-Identifier: Apache-2.0
"""Which nodes to keep, from one score per node and a budget: of nodes, or of what they cost."""

import math
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int

from plprune.costs import flops
from plprune.nodes.checks import as_patterns, check_fraction, check_names, vector
from plprune.nodes.cutting import shrink
from plprune.nodes.resizing import resize
from plprune.types import HEAD_WIDTH, Apply, Inputs, NodeGroups, Params

BUDGETS = ("group", "global", "cost")


def keep_top(
    scores: Mapping[str, Any],
    groups: NodeGroups,
    keep_fraction: ArrayLike,
    *,
    budget: str = "group",
    round_to: int = 1,
    min_nodes: int = 1,
    min_fraction: float = 0.0,
    node_costs: Mapping[str, float] | None = None,
    exclude: str | tuple[str, ...] = (),
    within_heads: bool = False,
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
        together, comparing scores across groups; "cost" keeps the first nodes, in order of their
        scores, whose costs sum to at most the fraction of the cost of all.
      round_to: Counts are rounded up to a multiple of this, for the hardware's sake; a group
        that has fewer nodes keeps them all.
      min_nodes: Nodes that every group keeps at least. A budget that minima exceed is exceeded.
      min_fraction: Part of its nodes that every group keeps at least, in [0, 1].
      node_costs: Group name -> cost of one of its nodes, such as `node_flops`; for "cost".
      exclude: Names or patterns such as "encoder.*" of groups to leave alone.
      within_heads: Choose among the widths within attention heads too, besides whole heads.

    Returns:
      Group name -> [g] booleans, for the prunable groups that have scores and are not excluded.
      Groups of kind "head width" are among them only with `within_heads`: modules that keep one
      width for queries, keys and values can only lose as much of each.

    Raises:
      ValueError: an argument is out of range, a name is unknown, scores are no real numbers, or a
        pattern matches nothing.
    """
    check_fraction(keep_fraction, "keep_fraction")
    ranking = ranked(
        scores,
        groups,
        round_to=round_to,
        min_nodes=min_nodes,
        min_fraction=min_fraction,
        exclude=exclude,
        within_heads=within_heads,
    )
    check_budget(budget, ranking.scores, min_fraction, node_costs)
    if budget == "group":
        sizes = ranking.sizes.items()
        return ranking.best({name: jnp.floor(keep_fraction * n + 0.5) for name, n in sizes})
    prices = node_costs if budget == "cost" else None
    return ranking.best(_shared_counts(ranking, keep_fraction, prices))


class Ranking(NamedTuple):
    """Nodes in the order of their scores, and how few of them a group keeps."""

    scores: dict[str, Array]  # Floats that can be compared; what is no number is the least.
    least: dict[str, int]
    round_to: int

    @property
    def sizes(self) -> dict[str, int]:
        """Group name -> number of its nodes."""
        return {name: len(values) for name, values in self.scores.items()}

    def best(self, counts: Mapping[str, Any]) -> dict[str, Bool[Array, " _"]]:
        """The nodes with the largest scores: `counts` of them, rounded, but at least `least`."""
        return {name: r < self.allowed(name, counts[name]) for name, r in self.ranks.items()}

    @property
    def ranks(self) -> dict[str, Int[Array, " _"]]:
        """Group name -> 0 for the node with the largest score, and so on; equal ones in order."""
        return {name: _ranks(values) for name, values in self.scores.items()}

    def allowed(self, name: str, count: Any) -> Int[Array, ""]:
        """How many nodes a group keeps where a budget has room for `count`."""
        rounded = jnp.ceil(jnp.maximum(count, self.least[name]) / self.round_to) * self.round_to
        # An integer, as ranks are: the two are compared where dtypes may not be promoted, too.
        return jnp.minimum(rounded, len(self.scores[name])).astype(jnp.int32)

    def shared_order(self) -> dict[str, Int[Array, " _"]]:
        """Place of every node among those of all groups; each group's `least` come first."""
        first = [
            jnp.where(r < self.least[n], jnp.inf, self.scores[n]) for n, r in self.ranks.items()
        ]
        places = _ranks(jnp.concatenate(first)) if first else jnp.zeros(0, jnp.int32)
        ends = list(accumulate(self.sizes.values()))
        return {
            name: places[end - size : end]
            for end, (name, size) in zip(ends, self.sizes.items(), strict=True)
        }


def ranked(
    scores: Mapping[str, Any],
    groups: NodeGroups,
    *,
    round_to: int,
    min_nodes: int,
    min_fraction: float,
    exclude: str | tuple[str, ...],
    within_heads: bool,
) -> Ranking:
    """The scored groups that can be pruned and are not excluded; arguments of `keep_top`.

    Raises:
      ValueError: as `keep_top`.
    """
    _check_counts(round_to=round_to, min_nodes=min_nodes)
    _check_min_fraction(min_fraction)
    check_names(scores, groups, "scores")
    excluded = excluded_groups(groups, exclude)
    if not within_heads:
        excluded |= {name for name in scores if groups[name].kind == HEAD_WIDTH}
    comparable = _comparable(
        {
            name: vector(values, f"scores[{name!r}]", groups[name].size)
            for name, values in scores.items()
            if groups[name].prunable and name not in excluded
        }
    )
    sizes = ((name, len(values)) for name, values in comparable.items())
    least = {name: max(min_nodes, math.ceil(min_fraction * n - 1e-9)) for name, n in sizes}
    return Ranking(comparable, least, round_to)


def check_budget(
    budget: str,
    names: Collection[str],
    min_fraction: float,
    node_costs: Mapping[str, float] | None,
) -> None:
    """ValueError unless a budget of `keep_top` is known, and has costs of all groups it needs."""
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {BUDGETS}, got {budget!r}.")
    _check_min_fraction(min_fraction)
    if budget == "cost":
        costs = node_costs or {}
        missing = sorted(set(names) - set(costs))
        if missing:
            raise ValueError(f"node_costs must name every group to choose in; missing: {missing}.")
        for name in names:
            if not 0 <= costs[name] < math.inf:
                raise ValueError(f"node_costs must be numbers >= 0, got {costs[name]} of {name}.")


def node_flops(
    apply: Apply, params: Params, groups: NodeGroups, inputs: Inputs
) -> dict[str, float]:
    """Floating-point operations of one forward pass that go when one node of a group goes.

    Counted by the compiler, with all other nodes in place: one compilation per prunable group.

    Args:
      apply: As given to `find_nodes`.
      params: Its parameters, or their shapes.
      groups: From `find_nodes`.
      inputs: A batch, or its shapes.
    """
    full = flops(apply, params, inputs)

    def without_one(name, size):
        keep = {name: np.arange(size) > 0}
        small = jax.eval_shape(lambda p: shrink(p, groups, keep), params)
        return flops(resize(apply, groups, keep), small, inputs)

    sizes = groups.prunable.items()
    return {name: full - without_one(name, n) if n > 1 else full for name, n in sizes}


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


def _check_counts(**counts):
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def _check_min_fraction(fraction):
    if not 0 <= fraction <= 1:
        raise ValueError(f"min_fraction must lie in [0, 1], got {fraction}.")


def excluded_groups(groups: NodeGroups, patterns: str | tuple[str, ...]) -> set[str]:
    """Names of the groups that patterns match; ValueError for one that matches nothing."""
    excluded = set()
    for pattern in as_patterns(patterns):
        matching = {name for name in groups if name == pattern or fnmatch(name, pattern)}
        if not matching:
            raise ValueError(f"exclude names {pattern!r}; the groups are {list(groups)}.")
        excluded |= matching
    return excluded


def _ranks(values):
    return jnp.argsort(jnp.argsort(-values)).astype(jnp.int32)


def _shared_counts(ranking: Ranking, keep_fraction, prices):
    """Nodes per group among those that one budget affords."""
    if not ranking.scores:
        return {}
    places = ranking.shared_order()
    ranks = jnp.concatenate(list(places.values()))
    if prices is None:
        number = jnp.floor(keep_fraction * len(ranks) + 0.5)
        kept = ranks < jnp.asarray(number).astype(jnp.int32)
    else:
        costs = [jnp.full(n, prices[name], jnp.float32) for name, n in ranking.sizes.items()]
        in_order = jnp.zeros(len(ranks), jnp.float32).at[ranks].set(jnp.concatenate(costs))
        spent = jnp.cumsum(in_order)
        slack = 1e-5 * spent[-1]  # Sums are rounded.
        kept = (spent <= keep_fraction * spent[-1] + slack)[ranks]
    ends = list(accumulate(ranking.sizes.values()))
    return {
        name: kept[end - size : end].sum()
        for end, (name, size) in zip(ends, ranking.sizes.items(), strict=True)
    }
