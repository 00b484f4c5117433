# SPDX-License-Identifier: Apache-2.0
"""Which groups a smaller module cannot lose, and in which of its layers that shows."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from plprune.nodes.agreement import Disagreement
from plprune.nodes.native_equinox import is_equinox, layers_of
from plprune.types import Keep, NodeGroup, NodeGroups

_MAX_TRIED = 8  # Groups that are all tried alone.
Attempt = Callable[..., Any]  # (keep, *, brief) -> the smaller module, or Disagreement.


def failing_alone(attempt: Attempt, groups: NodeGroups, keep: Keep) -> dict[str, str]:
    """Name -> why a group's nodes cannot close by themselves; empty where they can.

    Where there are many groups, one of those that repeated layers have alike speaks for all.
    """
    names = [name for name, kept in keep.items() if not np.all(kept)]
    same = _alike if len(names) > _MAX_TRIED else _itself
    reasons: dict[Any, str] = {}
    for name in names:
        if same(groups[name]) not in reasons:
            reasons[same(groups[name])] = _failure(attempt, {name: keep[name]})
    return {name: reasons[same(groups[name])] for name in names}


def largest_part(attempt: Attempt, groups: NodeGroups, keep: Keep) -> tuple[Any, dict[str, Any]]:
    """The smaller module without what fails alone, and the entries of `keep` that it has lost.

    Raises:
      Disagreement: what is left fails together.
    """
    failing = failing_alone(attempt, groups, keep)
    rest = {name: kept for name, kept in keep.items() if not failing.get(name)}
    try:
        return attempt(rest), rest
    except Disagreement:
        # Repeated layers are not always alike.
        failing = {name: _failure(attempt, {name: kept}) for name, kept in rest.items()}
        rest = {name: kept for name, kept in rest.items() if not failing[name]}
        return attempt(rest), rest


def _itself(group: NodeGroup):
    return group.name


def _failure(attempt, keep):
    try:
        attempt(keep, brief=True)
    except Disagreement as error:
        return described(error)
    return ""


def described(error: Disagreement) -> str:
    """What is wrong with the smaller module, with the layer that raised it."""
    layer = failing_layer(error.__cause__) if error.__cause__ else ""
    return f"{error} in {layer}" if layer else str(error)


def _alike(group: NodeGroup):
    """Equal for the groups of repeated layers, whose numbers alone differ."""
    members = tuple((re.sub(r"\d+", "*", m.path), m.axis) for m in group.members)
    return re.sub(r"\d+", "*", group.name), group.size, members


def failing_layer(error: BaseException) -> str:
    """Path and class of the innermost module in whose method it was raised; empty if none."""
    path, current = "", None
    for module in _modules(error.__traceback__):
        if current is not None and module is not current:
            step = _step(current, module)
            path = f"{path}.{step}" if path else step
        current = module
    if current is None:
        return ""
    kind = type(current).__name__
    return f"{path}, which is of class {kind}" if path else f"the module itself, a {kind}"


def _modules(traceback):
    """What the calls on the way had as their first argument, where it is a module."""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_argcount:
            first = frame.f_locals.get(frame.f_code.co_varnames[0])
            if isinstance(first, nnx.Module) or is_equinox(first):
                yield first
        traceback = traceback.tb_next


def _step(outer, inner):
    """The path from a module to one below it; a transformation works on copies."""
    inside = nnx.iter_modules(outer) if isinstance(outer, nnx.Module) else layers_of(outer)
    below: Mapping[Any, Any] = {path: module for path, module in inside if path}
    paths = [path for path, module in below.items() if module is inner]
    paths = paths or [path for path, module in below.items() if type(module) is type(inner)]
    return ".".join(map(str, paths[0])) if paths else type(inner).__name__
