# SPDX-License-Identifier: Apache-2.0
"""One call for all that pruning a model takes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from plprune.costs import Comparison
from plprune.gating import kappa
from plprune.losses import Loss, cross_entropy, squared_error
from plprune.nodes import Target, find_nodes, keep_top, keep_within, node_flops
from plprune.nodes.selection import BUDGETS
from plprune.pruning.given import given
from plprune.pruning.planning import UNSCORED, check_amount, kept_lines
from plprune.scores import SCORES, Probe
from plprune.scores.running import Score, check_needs
from plprune.types import Inputs, Keep, NodeGroups


class Pruned(NamedTuple):
    """A smaller model, and how it came about; `print` shows what it saves and what was kept."""

    model: Any  # Of the same kind as the model that was given; see `prune`.
    groups: NodeGroups  # Of the full model.
    keep: Keep  # Group name -> [g] booleans.
    left: tuple[str, ...]  # Groups that a native module cannot lose nodes of: whole, not in keep.
    comparison: Comparison  # Costs of one forward pass over the inputs, before and after.

    def __str__(self) -> str:
        lines = kept_lines(self.groups, self.keep)
        if self.left:
            lines.append(
                f"left as they are, as a native module cannot lose them: {list(self.left)}"
            )
        return "\n".join([str(self.comparison), "", *lines])


def prune(
    model: Any,
    inputs: Inputs,
    *,
    keep_fraction: float | None = None,
    target: Target | None = None,
    score: str | Score = "kappa",
    labels: PyTree = None,
    loss: Loss | None = None,
    key: PRNGKeyArray | None = None,
    budget: str = "group",
    exclude: str | tuple[str, ...] = (),
    round_to: int = 1,
    min_nodes: int = 1,
    call: Callable[..., Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Pruned:
    """A smaller model: its least important neurons, channels, heads and experts are gone.

    One call for what `find_nodes`, a score, `keep_top` or `keep_within`, `shrink` and
    `shrink_model` do. Nothing is trained; train on afterwards. To prune while a model trains, use
    `pl_gating`.

        small = plprune.prune(model, inputs, keep_fraction=0.5, score="magnitude")
        print(small)  # parameters, FLOPs, bytes and latency, before and after
        outputs = small.model(inputs)  # where `model` is an NNX module

    Args:
      model: One of
        an NNX module;
        an Equinox module, or (module, state) if it has an `eqx.nn.State`;
        (module, variables) of Flax Linen;
        (transformed, params), or (transformed, params, state), of Haiku;
        (apply, params) of any function ``apply(params, inputs) -> outputs``.
      inputs: A batch of examples: scores look at it, and both models are timed on it.
      keep_fraction: Fraction of the nodes to keep, in (0, 1].
      target: Limits to what the smaller model costs, instead of a fraction, as for `keep_within`:
        ``plprune.Target(flops=2e6)``. Running statistics count as parameters there.
      score: What ranks the nodes: "kappa", by the condition number of the tangent kernel
        (`plprune.gating.kappa`); a name in `plprune.scores.SCORES`; or any
        ``score(apply, params, groups, probe) -> {name: [g]}``, larger = keep.
      labels: Of the inputs, for the scores that need them.
      loss: Per example, ``loss(outputs, labels) -> [b]``; by default `losses.cross_entropy` for
        integer labels, and `losses.squared_error` for others.
      key: For the scores that draw, "kappa" among them.
      budget: "group", "global" or "cost", as for `keep_top`; "cost" is of `node_flops`. With a
        `target`, "group" or "global".
      exclude: Names or patterns, such as "encoder.*", of groups to leave alone.
      round_to: Counts are rounded up to a multiple of this.
      min_nodes: Nodes that every group keeps at least.
      call: How to run an NNX or Equinox module, as for `functional` and `functional_equinox`.
      evaluation: Keywords that put a Linen or Haiku model in evaluation mode, such as
        ``{"train": False}``.

    Returns:
      A `Pruned`. Its model is an NNX module, an Equinox module or (module, state), checked as
      `shrink_model` does; groups that this module cannot lose nodes of, as a width is written into
      its code, stay whole and are named in `left`. Otherwise it is a pair for
      ``apply(variables, inputs)``: the model evaluated at the new sizes by `resize`, and variables
      as they were given but smaller, (params, state) for Haiku with a state. The sizes of Linen and
      Haiku modules stand in constructors that you wrote: ``nodes.widths(groups, keep)`` says what
      to construct, and `nodes.shrink_linen` builds and checks a Linen module of these widths.

    Raises:
      ValueError: an argument out of range or of no known kind; a score without the labels or key
        that it needs, before any work; no group that can be pruned; a module that cannot lose nodes
        of any group; or what `keep_top`, the score and `shrink_model` raise.

    Cost: that of the functions named, and two compilations to measure both models.
    """
    rank, probe = _score(score, exclude), Probe(inputs, labels, _loss(loss, labels), key)
    check_needs(rank, probe)
    check_amount(keep_fraction, target, budget, BUDGETS if target is None else UNSCORED)
    full, shrunk = given(model, call, evaluation)
    _check_arrays(inputs=inputs, model=full.variables)
    groups = find_nodes(full.apply, full.variables, inputs)
    if not groups.prunable:
        reasons = "; ".join(f"{name}: {group.reason}" for name, group in groups.items())
        raise ValueError(f"model must have a group that can be pruned; {reasons or 'it has none'}.")
    costs = None
    if budget == "cost":
        costs = node_flops(full.apply, full.variables, groups, inputs)
    scores = rank(*full.scored(groups), groups, probe)
    options = {
        "budget": budget, "round_to": round_to, "min_nodes": min_nodes, "exclude": exclude,
    }  # fmt: skip
    if target is None:
        chosen = keep_top(scores, groups, keep_fraction, node_costs=costs, **options)
    else:
        chosen = keep_within(full.apply, full.variables, groups, scores, inputs, target, **options)
    keep = {name: np.asarray(kept) for name, kept in chosen.items()}
    small, functions, closed = shrunk(groups, keep)
    left = tuple(name for name in keep if name not in closed)
    comparison = Comparison(full.costs(inputs), functions.costs(inputs))
    return Pruned(small, groups, closed, left, comparison)


def _check_arrays(**trees):
    for name, tree in trees.items():
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree)):
            raise ValueError(
                f"{name} must hold arrays, to be run and timed, got shapes alone; see plan."
            )


def _score(score: str | Score, exclude) -> Score:
    named: dict[str, Score] = {"kappa": kappa, **SCORES}
    for name in ("kappa", "obs", "activation"):  # These refuse groups that they cannot rank.
        named[name] = partial(named[name], exclude=exclude)
    if isinstance(score, str) and score in named:
        return named[score]
    if isinstance(score, str) or not callable(score):
        raise ValueError(f"score must be a function or one of {sorted(named)}, got {score!r}.")
    return score


def _loss(loss, labels):
    if loss is not None or labels is None:
        return loss
    types = [jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(labels)]
    classes = all(jnp.issubdtype(kind, jnp.integer) for kind in types)
    return cross_entropy if classes else squared_error
