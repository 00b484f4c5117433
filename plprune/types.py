# SPDX-License-Identifier: Apache-2.0
"""The vocabulary shared by every module: trees, callables, estimates and node groups."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

Params = PyTree
Inputs = PyTree
Apply = Callable[
    [Params, Inputs], Array
]  # Outputs [b, c] or [b, ...]; example i sees input i only.
Objective = Callable[[Params, Any], Array]  # (params, batch) -> scalar.
MatVec = Callable[[PyTree], PyTree]  # v -> A v.
Gates = Mapping[str, Float[Array, " g"]]  # Group name -> one multiplier per node.
# Group name -> [g] booleans, True keeps the node; functions that take it also take exact 0 and 1.
Keep = Mapping[str, Any]


class Estimate(NamedTuple):
    """A measured number together with what is known of its error.

    Unresolved means that the number is below what the dtype can resolve; `error` then bounds it.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]  # Bound on |value - truth|, rigorous or measured.
    resolved: Bool[Array, "..."]


class Trained:
    """The class of a variable that is trained, where its library has none to say so."""


class Buffer:
    """The class of a variable that is not, such as a running mean or a table of positions."""


@dataclass(frozen=True, eq=False)
class Typed:
    """A function of trees of arrays that knows which class of variable each array came from."""

    function: Callable[..., Any]
    kinds: Mapping[tuple[str, ...], type]  # Keys of a leaf of the first arguments -> its class.

    def __call__(self, *args: Any) -> Any:
        """The function's own value."""
        return self.function(*args)


class Member(NamedTuple):
    """One axis of one parameter leaf along which the nodes of a group lie."""

    path: str  # Keys joined by dots; in brackets where two leaves would share the name.
    axis: int
    index: Int[np.ndarray, " n"]  # Node of each position of the axis; -1 belongs to no node.


HEAD_WIDTH = "head width"  # The kind of nodes within attention heads; defaults leave them alone.


class NodeGroup(NamedTuple):
    """Nodes (neurons, channels, heads, ...) of one kind, each with the slices it owns."""

    name: str
    size: int  # Number of nodes g.
    kind: str  # "neuron", "channel", "head", "head width", "expert" or "residual stream".
    members: tuple[Member, ...]  # Every slice that shrinking removes.
    producers: tuple[Member, ...]  # Slices that compute the node: incoming weights, bias, scale.
    consumers: tuple[Member, ...]  # Slices contracted against the node's output: where gates act.
    prunable: bool
    gateable: bool  # A gate can act in parameter space; else `gate` refuses the group.
    reason: str  # Why it is not prunable or not gateable; empty otherwise.


@dataclass(frozen=True, eq=False, repr=False)
class NodeGroups(Mapping[str, NodeGroup]):
    """Node groups by name, with what it takes to find their parameters in other trees.

    Prints as a table. Hashed by identity, so that it can be a static argument of jitted functions.
    """

    by_name: dict[str, NodeGroup]  # In order of evaluation.
    structure: Any  # Tree definition of the parameters that the groups were found on.
    paths: tuple[str, ...]  # Of the leaves of these parameters, in order.
    shapes: tuple[tuple[int, ...], ...]  # Full, unshrunk.
    inputs: Any  # Shapes and dtypes of the inputs that they were found with.
    mode: str = "strict"
    statistics: tuple[str, ...] = ()  # Last keys of leaves that masking leaves alone.
    closed_values: dict[tuple[str, str], float | None] = field(default_factory=dict)
    # (group, leaf path) -> value of a closed node's slice where it is not 0; None leaves it alone.
    held: frozenset[str] | None = None  # Paths of statistics; None: those that the names tell.
    dependence: str = ""  # Why examples are not proven independent; empty where they are.
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Leaf path -> the axes along which layers are stacked: a scan steps along them.
    native: Mapping[str, str] | None = None
    # Group name -> why `shrink_model` cannot cut it alone, or ""; from `nodes.native_groups`.

    def __getitem__(self, name: str) -> NodeGroup:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    # A mapping compares by its entries and so has no hash; these tables are what they are.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    @property
    def prunable(self) -> dict[str, int]:
        """Sizes of the groups that can be pruned, by name."""
        return {name: group.size for name, group in self.by_name.items() if group.prunable}

    @property
    def full_shapes(self) -> dict[str, tuple[int, ...]]:
        """Unshrunk shapes of the leaves, by path."""
        return dict(zip(self.paths, self.shapes, strict=True))

    def is_statistic(self, path: str) -> bool:
        """Whether masking and scores leave a leaf alone, such as the running mean of BatchNorm."""
        if self.held is not None:
            return path in self.held
        return path.rpartition(".")[2] in self.statistics

    def table(self, width: int | None = 100) -> str:
        """One row per group: name, size, kind, prunable and gateable, members or the reason.

        Args:
          width: Columns. Longer lists of members end in "and 3 more", reasons are wrapped, and
            axes of layers and of what the function does not use are only counted. None: everything.
        """
        shown = [g for g in self.values() if width is None or not self._folded(g)]
        columns = [("group", "nodes", "kind", "prune", "gate"), *map(_columns, shown)]
        widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
        starts = ["  ".join(map(str.ljust, row, widths)) + "  " for row in columns]
        room = None if width is None else width - len(starts[0])
        lines = [f"{starts[0]}members; why not"]
        for start, group in zip(starts[1:], shown, strict=True):
            first, *rest = _details(group, room, width)
            lines += [start + first, *rest]
        return "\n".join(line.rstrip() for line in (*lines, *self._footnotes(width)))

    def __repr__(self) -> str:
        """The `table` in 100 columns."""
        return self.table()

    def _folded(self, group):
        """What a row is folded into; empty for one that is shown."""
        if group.prunable:
            return ""
        if all(m.axis in self.layers.get(m.path, ()) for m in group.members):
            return "layer axes"
        return "axes that the function does not use" if group.reason.startswith(UNUSED) else ""

    def _footnotes(self, width):
        notes = []
        if self.layers:
            notes.append(_stacked(self.layers, self.full_shapes))
        folded = [] if width is None else [f for f in map(self._folded, self.values()) if f]
        if folded:
            counts = ", ".join(f"{folded.count(what)} {what}" for what in dict.fromkeys(folded))
            notes.append(f"not shown: {counts}; table(width=None) shows all")
        failing = [name for name, why in (self.native or {}).items() if why]
        if failing:
            names = _listed(failing, None if width is None else width - 60)
            notes.append(f"shrink_model cannot cut alone: {names}; groups.native says why")
        if self.dependence:
            notes.append(f"examples are not proven independent: {self.dependence}")
        return notes


UNUSED = "the function does not use"  # How the reason of a leaf without any use begins.


def _columns(group):
    flags = ("yes" if flag else "no" for flag in (group.prunable, group.gateable))
    return (group.name, str(group.size), group.kind, *flags)


def _details(group, room, width) -> list[str]:
    """Members and the reason; on lines of their own where there is no room beside the rest."""
    members = [f"{m.path}[{m.axis}]" for m in group.members]
    full = "; ".join(filter(None, (", ".join(members), group.reason)))
    if width is None or len(full) <= room:
        return [full]
    reason = re.sub(r"/\S*/", "", group.reason)  # Files without their folders.
    beside = _listed(members, room)
    if len(beside) > room:
        parts = ["", "; ".join(filter(None, (_listed(members, width - 4), reason)))]
    elif reason and len(beside) + 2 + len(reason) <= room:
        parts = [f"{beside}; {reason}", ""]
    else:
        parts = [beside, reason]
    indent = " " * 4
    below = textwrap.wrap(parts[1], width, initial_indent=indent, subsequent_indent=indent)
    return [parts[0], *below]


def _listed(names: Sequence[str], room: int | None) -> str:
    """As many names as there is room for, and how many more there are."""
    for count in range(len(names), 0, -1):
        rest = f" and {len(names) - count} more" if count < len(names) else ""
        text = ", ".join(names[:count]) + rest
        if room is None or len(text) <= room:
            return text
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _stacked(layers, shapes):
    """In one line, that layers are stacked."""
    counts = sorted({shapes[path][axis] for path, axes in layers.items() for axis in axes})
    keys = zip(*(path.split(".")[:-1] for path in layers), strict=False)
    common = ".".join(same[0] for same in takewhile(lambda k: len(set(k)) == 1, keys))
    where = f" of {common}" if common else ""
    return (
        f"layers are stacked: a node{where} closes in all {' or '.join(map(str, counts))} of them "
        "at once; unstack parts them"
    )
