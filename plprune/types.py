# SPDX-License-Identifier: Apache-2.0
"""The vocabulary shared by every module: trees, callables, estimates and node groups."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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


class NodeGroup(NamedTuple):
    """Nodes (neurons, channels, heads, ...) of one kind, each with the slices it owns."""

    name: str
    size: int  # Number of nodes g.
    kind: str  # "neuron", "channel", "head", "expert" or "residual stream".
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

    def __repr__(self) -> str:
        """One line per group: name, size, kind, prunable and gateable, members or the reason."""
        rows = [("group", "nodes", "kind", "prune", "gate", "members; why not")]
        rows += [_row(group) for group in self.by_name.values()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
        lines = ("  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows)
        table = "\n".join(line.rstrip() for line in lines)
        if not self.dependence:
            return table
        return f"{table}\nexamples are not proven independent: {self.dependence}"


def _row(group):
    members = ", ".join(f"{m.path}[{m.axis}]" for m in group.members)
    detail = "; ".join(filter(None, (members, group.reason)))
    flags = ("yes" if flag else "no" for flag in (group.prunable, group.gateable))
    return (group.name, str(group.size), group.kind, *flags, detail)
