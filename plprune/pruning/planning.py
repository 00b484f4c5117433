# SPDX-License-Identifier: Apache-2.0
"""What pruning would leave of a model, from shapes alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from plprune.costs import Comparison, Costs
from plprune.nodes import Target, find_nodes, keep_top, keep_within
from plprune.nodes.checks import check_fraction
from plprune.nodes.discovery import shape_of
from plprune.nodes.selection import BUDGETS
from plprune.nodes.sizes import modelled_flops, parameter_counts
from plprune.pruning.given import given
from plprune.types import Inputs, Keep, NodeGroups

UNSCORED = BUDGETS[:2]


class Plan(NamedTuple):
    """Which nodes would stay, and what that saves; `print` shows both."""

    groups: NodeGroups
    keep: Keep  # Group name -> [g] booleans.
    comparison: Comparison  # Of parameters, bytes and operations; NaN where one has to run.

    def __str__(self) -> str:
        return "\n".join([str(self.comparison), "", *kept_lines(self.groups, self.keep)])


def plan(
    model: Any,
    inputs: Inputs,
    *,
    keep_fraction: float | None = None,
    target: Target | None = None,
    scores: Mapping[str, Any] | None = None,
    budget: str = "group",
    exclude: str | tuple[str, ...] = (),
    round_to: int = 1,
    min_nodes: int = 1,
    call: Callable[..., Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Plan:
    """What `prune` would leave, found from shapes: no weight is allocated and nothing is compiled.

        model = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
        tokens = jax.ShapeDtypeStruct((1, 128), jnp.int32)
        plan = plprune.plan(model, tokens, target=plprune.Target(parameters=6e9), round_to=128)
        print(plan)  # parameters, bytes and FLOPs, before and after; how many of each group stay

    Where layers differ in the nodes that they keep, `plprune.shrink` and `shrink_checkpoint` cut
    parameters, optimiser states and checkpoints accordingly.

    Args:
      model: As for `prune`, with shapes in place of arrays: from `nnx.eval_shape`,
        `eqx.filter_eval_shape`, `jax.eval_shape` of a Linen or Haiku `init`, or the parameters that
        `storage.abstract_checkpoint` read. Arrays serve as well.
      inputs: A batch of examples, or its shapes.
      keep_fraction: Fraction of the nodes to keep, in (0, 1].
      target: Limits on parameters, bytes or FLOPs instead; those on FLOPs take a few compilations.
      scores: As `keep_top` takes them. Without, only the numbers mean something: the first nodes of
        every group stay.
      budget: "group" or, with scores, "global", as for `keep_top`.
      exclude: Names or patterns of groups to leave alone.
      round_to: Counts are rounded up to a multiple of this; smaller groups keep all nodes.
      min_nodes: Nodes that every group keeps at least.
      call: How to run an NNX or Equinox module, as for `functional` and `functional_equinox`.
      evaluation: Keywords that put a Linen or Haiku model in evaluation mode.

    Raises:
      ValueError: an argument out of range or of no known kind, or a target of seconds, for which a
        model has to run; or what `keep_top` and `keep_within` raise.

    Cost: two analyses of the graph. Operations are counted as `keep_within` models them, but those
    of a scan for each of its steps, of which the compiler's count, and so a target, has one.
    """
    check_amount(keep_fraction, target, budget, UNSCORED)
    if target is not None and target.seconds is not None:
        raise ValueError("target must not limit seconds: shapes cannot be timed.")
    full = given(model, call, evaluation).functions
    apply, variables = full.apply, jax.tree.map(shape_of, full.variables)
    inputs = jax.tree.map(shape_of, inputs)
    groups = find_nodes(apply, variables, inputs)
    if scores is None:
        scores = {name: np.zeros(size) for name, size in groups.prunable.items()}
    options = {
        "budget": budget, "round_to": round_to, "min_nodes": min_nodes, "exclude": exclude,
    }  # fmt: skip
    if target is None:
        chosen = keep_top(scores, groups, keep_fraction, **options)
    else:
        chosen = keep_within(apply, variables, groups, scores, inputs, target, **options)
    keep = {name: np.asarray(kept) for name, kept in chosen.items()}
    operations = modelled_flops(apply, variables, groups, inputs, every_step=True)
    held, stored = parameter_counts(full.params, groups)

    def costs(keep):
        return Costs(held(keep), int(stored(keep)), operations(keep), math.nan, math.nan)

    return Plan(groups, keep, Comparison(costs({}), costs(keep)))


def check_amount(
    keep_fraction: float | None, target: Target | None, budget: str, budgets: Sequence[str]
) -> None:
    """ValueError unless one of fraction and target says how much shall stay, by a known budget."""
    if (keep_fraction is None) == (target is None):
        raise ValueError("one of keep_fraction and target must be given.")
    if keep_fraction is not None:
        check_fraction(keep_fraction, "keep_fraction")
    if budget not in budgets:
        raise ValueError(f"budget must be one of {budgets}, got {budget!r}.")


def kept_lines(groups: NodeGroups, keep: Keep) -> list[str]:
    """How many nodes of each group stay, a line each; those that repeated layers have alike once.

    Groups are alike whose names differ in numbers alone.
    """
    kept = {name: f"{int(np.sum(mask))} of {len(mask)}" for name, mask in keep.items()}
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, count in kept.items():
        pattern = ".".join("*" if part.isdigit() else part for part in name.split("."))
        rows.setdefault((pattern, count, groups[name].kind), []).append(name)
    shown = [
        (names[0] if len(names) == 1 else f"{pattern} ({len(names)} times)", count, kind)
        for (pattern, count, kind), names in rows.items()
    ]
    widths = [max((len(row[k]) for row in shown), default=0) for k in (0, 1)]
    return [f"{n.ljust(widths[0])}  {c.rjust(widths[1])} {kind}s" for n, c, kind in shown]
