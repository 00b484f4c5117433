# SPDX-License-Identifier: Apache-2.0
"""What a native module can lose: said before any cutting, and without what it cannot."""

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from plprune.nodes.agreement import Disagreement
from plprune.nodes.blame import failing_alone
from plprune.nodes.native import attempts, native_part
from plprune.types import Keep, NodeGroups


def shrink_native(
    model: Any,
    groups: NodeGroups,
    keep: Keep,
    *,
    call: Callable[..., Any] = operator.call,
) -> tuple[Any, dict[str, Any]]:
    """``shrink_model(..., native_only=True)``, and the entries of `keep` that it closed.

    Arguments, errors and cost are those of `native_keep`.
    """
    attempt = attempts(model, groups, keep, call)
    try:
        return attempt(keep), dict(keep)
    except Disagreement:
        return native_part(attempt, groups, keep)


def native_keep(
    model: Any,
    groups: NodeGroups,
    keep: Keep,
    *,
    call: Callable[..., Any] = operator.call,
) -> dict[str, Any]:
    """The entries of `keep` with which `shrink_model` succeeds, to cut other trees alike.

    With these, ``shrink_model(model, groups, ...)`` is ``shrink_model(..., native_only=True)`` of
    the whole `keep`, and ``shrink(opt_state, groups, ...)`` is its optimiser's state.

    Args:
      model: As for `shrink_model`, and the rest too.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans, concrete.
      call: How to run the model.

    Raises:
      ValueError: as `shrink`; the groups are those of another model; or what each can go alone
        cannot go together.

    Cost: that of `shrink_model`.
    """
    return shrink_native(model, groups, keep, call=call)[1]


def native_groups(
    model: Any,
    groups: NodeGroups,
    *,
    call: Callable[..., Any] = operator.call,
) -> NodeGroups:
    """The same groups, of which `native` says which ones `shrink_model` can cut.

    It maps the name of every prunable group to the reason why the module cannot lose the first
    half of its nodes and nothing else, or to an empty string:

        groups = plprune.nodes.native_groups(model, groups)
        foreign = [name for name, why in groups.native.items() if why]
        keep = plprune.keep_top(scores, groups, 0.5, exclude=tuple(foreign))

    A width that several groups share (of queries, keys and values in one attention) can go only
    together, and counts as foreign here.

    Args:
      model: As for `shrink_model`, left as it was.
      groups: From `find_nodes` on the model's parameters, with or without its state.
      call: How to run the model, as for `shrink_model`.

    Raises:
      ValueError: the groups are those of another model.

    Cost: for each group, one of those that repeated layers have alike, two compilations.
    """
    # The first nodes go: frequencies and other numbers made from a width often begin alike.
    keep = {name: np.arange(size) >= size // 2 for name, size in groups.prunable.items()}
    attempt = attempts(model, groups, keep, call)
    return replace(groups, native=failing_alone(attempt, groups, keep))
