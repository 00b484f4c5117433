# SPDX-License-Identifier: Apache-2.0
"""The options that `pl_gating` and `score_gating` share, checked."""

import fnmatch
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Int

from plprune.gating.relaxations import Choose
from plprune.gating.schedules import kept_fraction
from plprune.nodes import keep_top
from plprune.nodes.checks import as_patterns
from plprune.nodes.selection import check_budget
from plprune.types import HEAD_WIDTH, Apply, NodeGroups


class Options(NamedTuple):
    """When gates are updated and how many nodes they may keep open."""

    keep_fraction: float
    initial_updates: int
    period: int | None
    freeze_at: int | None
    schedule: str
    budget: str
    min_fraction: float
    node_costs: Mapping[str, float] | None
    probe_size: int
    loss: Callable | None
    independent: bool

    def examples(self, inputs: Any) -> Any:
        """As many of a probe's inputs as a gate update draws."""
        return jax.tree.map(lambda a: a[: self.probe_size], inputs)

    def is_due(self, step: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether the call at `step` updates gates."""
        due = step == 0
        if self.period is not None:
            due |= step % self.period == 0
        if self.freeze_at is not None:
            due &= step < self.freeze_at
        return due

    def chooser(
        self, groups: NodeGroups, sizes: Mapping[str, int]
    ) -> Callable[[Int[Array, ""]], Choose]:
        """``step -> (gates -> keep)``, once all options are known to be in range.

        Raises:
          ValueError: an option that is not.
        """
        self._check(sizes)
        last = 0
        if self.freeze_at is not None and self.period is not None:
            last = (self.freeze_at - 1) // self.period * self.period
        fraction = kept_fraction(self.schedule, keep_fraction=self.keep_fraction, num_steps=last)

        def at(step):
            return lambda gates: keep_top(
                gates,
                groups,
                fraction(step),
                budget=self.budget,
                min_fraction=self.min_fraction,
                node_costs=self.node_costs,
                within_heads=True,  # The groups that are gated have been chosen.
            )

        return at

    def _check(self, sizes):
        counts = {"period": self.period, "freeze_at": self.freeze_at, "probe_size": self.probe_size}
        check_counts(**{name: (v, 1) for name, v in counts.items() if v is not None})
        if self.schedule != "one_shot" and (self.freeze_at is None or self.period is None):
            raise ValueError(f"schedule {self.schedule!r} needs period and freeze_at.")
        check_budget(self.budget, sizes, self.min_fraction, self.node_costs)


def with_state(apply: Callable, model_state: Any) -> Apply:
    """``apply(params, inputs)`` of a model that is called with a state where there is one."""
    return apply if model_state is None else lambda p, x: apply(p, model_state, x)


def check_counts(**counts: tuple[int, int]) -> None:
    """ValueError for a (value, least) pair whose value is no integer, or below least."""
    for name, (value, least) in counts.items():
        try:
            operator.index(value)
        except TypeError as error:
            raise ValueError(f"{name} must be an integer, got {value!r}.") from error
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def gated_sizes(
    groups: NodeGroups, exclude: str | tuple[str, ...], *, within_heads: bool = False
) -> dict[str, int]:
    """Sizes of the groups that can be pruned and gated and are not excluded.

    Args:
      groups: From `find_nodes`.
      exclude: Names or patterns.
      within_heads: Whether widths within attention heads are among them.

    Raises:
      ValueError: none is left, or a pattern of `exclude` matches nothing.
    """
    gated = {n: groups[n].size for n in groups if groups[n].prunable and groups[n].gateable}
    if not gated:
        reasons = "; ".join(f"{name}: {groups[name].reason}" for name in groups)
        raise ValueError(f"groups must hold one that can be pruned and gated; {reasons or 'none'}.")
    exclude = as_patterns(exclude)
    for pattern in exclude:
        if not fnmatch.filter(groups, pattern):
            raise ValueError(f"exclude names {pattern!r}; the groups are {list(groups)}.")
    chosen = {
        name: size
        for name, size in gated.items()
        if not any(fnmatch.fnmatch(name, pattern) for pattern in exclude)
    }
    if not chosen:
        raise ValueError(f"exclude must leave a group to gate, got {exclude}.")
    if within_heads:
        return chosen
    whole = {name: size for name, size in chosen.items() if groups[name].kind != HEAD_WIDTH}
    if not whole:
        raise ValueError(f"{list(chosen)} are widths within heads: gate with within_heads=True.")
    return whole
