# SPDX-License-Identifier: Apache-2.0
"""Which nodes to keep so that the shrunk model costs no more than it may."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from plprune.costs import flops, latency
from plprune.nodes.checks import is_unseen
from plprune.nodes.cutting import shrink
from plprune.nodes.resizing import resize
from plprune.nodes.selection import Ranking, ranked
from plprune.nodes.sizes import Count, modelled_flops, parameter_counts
from plprune.types import Apply, Inputs, Keep, NodeGroups, Params

_MOST_COMPILATIONS = 12  # To settle what the compiler's count is of the modelled one.
_CLOSE = 0.95  # Of a latency: what is nearer cannot be told apart by a clock.


class Target(NamedTuple):
    """The most that a model may cost: at least one limit, in the units of `plprune.costs`."""

    parameters: float | None = None  # Scalars in the tree of parameters, and state where it has it.
    flops: float | None = None  # Of one forward pass over the inputs, as the compiler counts.
    bytes: float | None = None  # Of the parameters, in memory.
    seconds: float | None = None  # Of one forward pass over the inputs, measured here.


def keep_within(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    scores: Mapping[str, Any],
    inputs: Inputs,
    target: Target,
    *,
    budget: str = "group",
    round_to: int = 1,
    min_nodes: int = 1,
    min_fraction: float = 0.0,
    exclude: str | tuple[str, ...] = (),
    within_heads: bool = False,
    clock: Callable[..., float] = latency,
) -> dict[str, Bool[np.ndarray, " _"]]:
    """The nodes with the largest scores such that the model shrunk to them costs at most `target`.

    Nodes are let in one by one, or `round_to` of them, by their place in an order: that of their
    scores, in groups alike or in all groups together. From where the next of a group would exceed a
    limit no more of that group come in, but smaller ones of others do, so that in the end none fits
    any more. A limit on seconds ends the order at once.

    Args:
      apply: As given to `find_nodes`.
      params: The parameters that the groups were found on; shapes are enough without `seconds`.
      groups: From `find_nodes`.
      scores: As `keep_top` takes them.
      inputs: The batch that operations and seconds are of, or its shapes.
      target: Limits, all of which are met: what `plprune.costs` says of the shrunk model.
      budget: "group" takes about the same fraction of every group; "global" compares scores across
        groups.
      round_to: As for `keep_top`, like the next three.
      min_nodes: Nodes that every group keeps at least.
      min_fraction: Part of its nodes that every group keeps at least.
      exclude: Names or patterns of groups to leave alone.
      within_heads: As for `keep_top`.
      clock: ``clock(function, params, inputs) -> seconds``, such as `costs.latency`, the median of
        ten calls here; give it a `partial` with more repeats, or your own for another device.

    Returns:
      Group name -> [g] booleans, as `keep_top`.

    Raises:
      ValueError: as `keep_top`; no limit, or one that is no number above 0; or a limit that even
        the fewest nodes exceed, with what these cost.

    Parameters and bytes are counted from shapes. Operations take one analysis of `apply` and a few
    compilations, which correct a count on the graph by the compiler's. Seconds take a compilation
    and a measurement for each of about ten sizes: a measured time is as good as the machine is
    quiet, and a model that is smaller may be slower. The larger of two measurements counts.
    """
    _check_target(target)
    for name, values in scores.items():
        if is_unseen(values):
            raise ValueError(f"scores[{name!r}] must be concrete: costs depend on them.")
    if budget not in ("group", "global"):
        raise ValueError(f'budget must be "group" or "global", got {budget!r}.')
    ranking = ranked(
        scores,
        groups,
        round_to=round_to,
        min_nodes=min_nodes,
        min_fraction=min_fraction,
        exclude=exclude,
        within_heads=within_heads,
    )
    choice, model = _Choice(ranking, budget), _Model(apply, params, groups, inputs, clock)
    counts = dict(zip(("parameters", "bytes"), parameter_counts(params, groups), strict=True))
    counts |= {"flops": model.flops, "seconds": model.seconds}
    limits = {n: _Limit(n, counts[n], most) for n, most in target._asdict().items() if most}
    for name in limits.keys() - {"flops"}:
        limits[name].check(choice.keep(()))
    if "seconds" in limits:
        return _up_to_a_time(choice, list(limits.values()))
    if "flops" in limits:
        modelled = modelled_flops(apply, params, groups, inputs)
        return _up_to_a_count(choice, limits, modelled)
    return choice.keep(_filled(choice, list(limits.values())))


def _check_target(target):
    limits = {name: most for name, most in target._asdict().items() if most is not None}
    if not limits:
        raise ValueError(f"target must have a limit: one of {Target._fields}, got none.")
    for name, most in limits.items():
        if not most > 0:
            raise ValueError(f"target: {name} must be a number above 0, got {most}.")


class _Limit(NamedTuple):
    name: str
    count: Count
    most: float

    def admits(self, keep: Keep) -> bool:
        return self.count(keep) <= self.most

    def check(self, fewest: Keep) -> None:
        least = self.count(fewest)
        if not least <= self.most:
            raise ValueError(
                f"target: {self.name} must be at least {least:.6g}, the cost of the fewest nodes, "
                f"got {self.most:.6g}."
            )


class _Model(NamedTuple):
    """Costs of the shrunk model that have to be compiled for."""

    apply: Apply
    params: Params
    groups: NodeGroups
    inputs: Inputs
    clock: Callable[..., float]

    def flops(self, keep: Keep) -> float:
        small = jax.eval_shape(lambda p: shrink(p, self.groups, keep), self.params)
        return flops(resize(self.apply, self.groups, keep), small, self.inputs)

    def seconds(self, keep: Keep) -> float:
        small, function = (
            shrink(self.params, self.groups, keep),
            resize(self.apply, self.groups, keep),
        )
        # The larger of two: a search would else end at whatever was lucky.
        return max(self.clock(function, small, self.inputs) for _ in range(2))


class _Choice:
    """Nodes beyond the fewest, in the order in which they are let in."""

    def __init__(self, ranking: Ranking, budget: str):
        self.ranks = {name: np.asarray(ranks) for name, ranks in ranking.ranks.items()}
        self.sizes, self.by = ranking.sizes, ranking.round_to
        self.fewest = {name: int(ranking.allowed(name, 0)) for name in self.sizes}
        if budget == "group":
            places = {name: (r + 0.5) / len(r) for name, r in self.ranks.items()}
        else:
            places = {name: np.asarray(p) for name, p in ranking.shared_order().items()}
        steps = [
            (place, number, name)
            for number, name in enumerate(self.sizes)
            for place in np.sort(places[name])[self.fewest[name] :: self.by].tolist()
        ]
        self.steps = [name for _, _, name in sorted(steps)]  # Each lets in `by` nodes of a group.

    def keep(self, steps: Sequence[str]) -> dict[str, Bool[np.ndarray, " _"]]:
        """The fewest nodes, and those of some steps."""
        taken = Counter(steps)
        return {n: r < self.fewest[n] + self.by * taken[n] for n, r in self.ranks.items()}


def _filled(choice: _Choice, limits: Sequence[_Limit]) -> list[str]:
    """Steps in order until limits are met, without groups of which the next exceeds one.

    Nodes of a group are alike in size, and each costs the more the more of others there are: what
    does not fit once never will.
    """
    taken: list[str] = []
    waiting = choice.steps

    def fits(number, taken, waiting):
        keep = choice.keep(taken + waiting[:number])
        return all(limit.admits(keep) for limit in limits)

    while waiting:
        number = _most(partial(fits, taken=taken, waiting=waiting), len(waiting))
        taken, left = taken + waiting[:number], waiting[number:]
        waiting = [name for name in left if name != left[0]]
    return taken


def _most(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, where 0 does and larger ones are harder to fit.

    Small numbers are tried first: of most groups no node fits once one did not.
    """
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    between = range(low + 1, min(high - 1, most) + 1)
    return low + bisect_left(between, True, key=lambda n: not fits(n))


def _up_to_a_count(choice: _Choice, limits: Mapping[str, _Limit], modelled: Count):
    """Nodes by the modelled count of operations, corrected by the compiler's where it led to."""
    exact = limits["flops"]
    others = [limit for name, limit in limits.items() if name != "flops"]
    best, seen, factor = None, [], 1.0
    for _ in range(_MOST_COMPILATIONS):
        steps = _filled(choice, [*others, _Limit("flops", modelled, exact.most / factor)])
        keep, taken = choice.keep(steps), Counter(steps)
        if taken in seen:
            break
        seen.append(taken)
        count = exact.count(keep)
        if count <= exact.most and (best is None or count > best[0]):
            best = count, keep
        factor = count / modelled(keep)
    if best is None:
        best = exact.check(choice.keep(())), choice.keep(())
    return best[1]


def _up_to_a_time(choice: _Choice, limits: Sequence[_Limit]):
    """Nodes by bisection of their order; the first that comes close enough ends it."""
    *others, seconds = limits
    best, low, high = choice.keep(()), 0, len(choice.steps)
    number = high
    while low < high:
        keep = choice.keep(choice.steps[:number])
        fits = all(limit.admits(keep) for limit in others)
        measured = seconds.count(keep) if fits else math.inf
        if measured <= seconds.most:
            best, low = keep, number
            if measured >= _CLOSE * seconds.most:
                break
        else:
            high = number - 1
        number = (low + high + 1) // 2
    return best
