"""The vocabulary shared by every module: trees, callables, estimates and node groups."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

Params = PyTree
Inputs = PyTree
Apply = Callable[[Params, Inputs], Array]  # Outputs [b, c] or [b, ...]; example i sees input i only.
Objective = Callable[[Params, Any], Array]  # (params, batch) -> scalar.
MatVec = Callable[[PyTree], PyTree]  # v -> A v.
Gates = Mapping[str, Float[Array, " g"]]  # Group name -> one multiplier per node.
Keep = Mapping[str, Bool[Array | np.ndarray, " g"]]  # Group name -> True keeps the node.


class Estimate(NamedTuple):
    """A measured number together with what is known of its error.

    Unresolved means that the number is below what the dtype can resolve; `error` then bounds it.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]  # Bound on |value - truth|, rigorous or measured.
    resolved: Bool[Array, "..."]


class Member(NamedTuple):
    """One axis of one parameter leaf along which the nodes of a group lie."""

    path: str  # Keys joined by dots, as `jax.tree_util.keystr(path, simple=True, separator=".")`.
    axis: int
    index: Int[np.ndarray, " n"]  # Node of each position of the axis; -1 belongs to no node.


class NodeGroup(NamedTuple):
    """Nodes (neurons, channels, heads, ...) of one kind whose parameter slices come and go together."""

    name: str
    size: int  # Number of nodes g.
    kind: str  # "neuron", "channel", "head", "expert" or "residual stream".
    members: tuple[Member, ...]  # Every slice that shrinking removes.
    producers: tuple[Member, ...]  # Slices that compute the node: incoming weights, bias, scale.
    consumers: tuple[Member, ...]  # Slices contracted against the node's output: where gates act.
    prunable: bool
    gateable: bool  # A gate can act in parameter space; else `gate` refuses the group.
    reason: str  # Why it is not prunable or not gateable; empty otherwise.
