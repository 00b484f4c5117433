# SPDX-License-Identifier: Apache-2.0
"""The matrices that read nodes: leaves whose rows are multiplied by what the nodes put out."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plprune.graph.linear.matrices import Bias, Product, biases, products
from plprune.graph.tracing import Graph, trace
from plprune.nodes.matching import match_leaves
from plprune.types import Apply, Inputs, NodeGroups, Params


class Reader(NamedTuple):
    """A leaf that reads nodes, and every place where it does."""

    uses: dict[int, Product]  # By equation; all alike.
    bias: Bias | None  # Added to its product, where that is the only one.
    rows: dict[str, np.ndarray]  # Group name -> [i] node that each row reads, -1 for none.

    @property
    def product(self) -> Product:
        """Any of the uses."""
        return next(iter(self.uses.values()))

    def matrix(self, leaves: Any) -> Float[Array, "h i o"]:
        """The leaf as the matrices that it is, one per group of features or head."""
        return self.product.matrix.to(leaves[self.product.leaf])


class Readers(NamedTuple):
    """A traced function with what reads some of its nodes."""

    graph: Graph
    found: tuple[Reader, ...]  # In order of evaluation.

    def of(self, name: str) -> list[Reader]:
        """Those of one group."""
        return [reader for reader in self.found if name in reader.rows]


def find_readers(
    apply: Apply, params: Params, inputs: Inputs, groups: NodeGroups, names: Collection[str]
) -> Readers:
    """All readers of some groups, which must be plain contractions.

    Raises:
      ValueError: groups that nothing reads, or that are read in any other way: in a loop, a grouped
        convolution, a slice, or by something that is no parameter. Names them, and the leaves.
    """
    graph = trace(apply, params, inputs)
    places = match_leaves(params, groups).positions()
    leaf_of = {path: leaf for leaf, path in places.items()}
    gated = [name for name in names if groups[name].gateable]
    axes: dict[int, frozenset[int]] = defaultdict(frozenset)
    for member in (m for name in gated for m in groups[name].consumers):
        axes[leaf_of[member.path]] |= {member.axis}
    found = products(graph, axes)
    uses = _alike(graph, found)
    others = {
        name: f"{member.path} reads it, and not by plain matrix products alone"
        for name in gated
        for member in groups[name].consumers
        if leaf_of[member.path] not in uses
    }
    refuse({name: groups[name].reason for name in names if name not in gated} | others)
    added = biases(graph, found, len(graph.paths[0]))
    readers = (
        Reader(
            own,
            added.get(next(iter(own))) if len(own) == 1 else None,
            _rows(groups, names, places[leaf], own, graph.shape(graph.inputs[leaf])),
        )
        for leaf, own in uses.items()
    )
    return Readers(graph, tuple(sorted(readers, key=lambda reader: min(reader.uses))))


def refuse(reasons: Mapping[str, str]) -> None:
    """ValueError with the names of groups that cannot be solved for, and why, if there are any."""
    if reasons:
        shown = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise ValueError(
            f"groups: least squares cannot solve for what reads {shown}; leave out by "
            f"exclude={tuple(reasons)}."
        )


def _alike(graph, found):
    """Leaf -> its uses, where all have the rows of one matrix and real numbers."""
    uses = defaultdict(dict)
    for index, product in found.items():
        uses[product.leaf][index] = product
    return {
        leaf: own
        for leaf, own in uses.items()
        if len({product.matrix for product in own.values()}) == 1
        and jnp.issubdtype(graph.avals[graph.inputs[leaf]].dtype, jnp.floating)
    }


def _rows(groups, names, path, uses, shape) -> dict[str, np.ndarray]:
    """Which node of each group every row of the matrix reads."""
    layout = next(iter(uses.values())).matrix
    rows = {}
    for name in names:
        for member in groups[name].consumers:
            if member.path == path:
                along = [-1 if d == member.axis else 1 for d in range(len(shape))]
                whole = np.broadcast_to(np.reshape(member.index, along), shape)
                rows[name] = np.maximum(rows.get(name, -1), layout.to(whole)[0, :, 0])
    return rows


class Moments(NamedTuple):
    """Averages over the positions at which a matrix is multiplied."""

    square: Float[Array, "h i i"]  # Of its rows with themselves, about their means.
    cross: Float[Array, "h i i"]  # Of its rows with another model's.
    mean: Float[Array, "h i"]  # Zero where no bias takes it up.
    other_mean: Float[Array, "h i"]


def moments(
    rows: Float[Array, "h s i"], others: Float[Array, "h s i"], *, centred: bool
) -> Moments:
    """Second moments of what a matrix is multiplied by, with itself and with another model's.

    Args:
      rows: At all positions of all examples.
      others: The other model's, at the same positions.
      centred: Whether a bias takes up the means.
    """
    means = [jnp.mean(r, axis=1) if centred else jnp.zeros_like(r[:, 0]) for r in (rows, others)]
    own, other = (r - m[:, None] for r, m in zip((rows, others), means, strict=True))

    def average(left, right):
        full = jax.lax.Precision.HIGHEST
        return jnp.einsum("hsi,hsj->hij", left, right, precision=full) / rows.shape[1]

    return Moments(average(own, own), average(own, other), *means)


def damped(square: Float[Array, "h i i"], damping: float) -> Float[Array, "h i i"]:
    """A second moment with part of its mean diagonal entry added: invertible, also at 0."""
    mean = jnp.trace(square, axis1=1, axis2=2) / square.shape[-1]
    extra = jnp.where(mean > 0, damping * mean, 1)
    return square + extra[:, None, None] * jnp.eye(square.shape[-1], dtype=square.dtype)


def check_damping(damping: float, *, most: float = math.inf) -> None:
    """ValueError unless it is a number above 0, infinity where that is allowed."""
    if not 0 < damping <= most:
        raise ValueError(f"damping must be above 0, got {damping}.")
