# SPDX-License-Identifier: Apache-2.0
"""What the removal of nodes costs the layers that read them, at best."""

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plprune.graph.tracing import bind, evaluate
from plprune.nodes.readers import (
    Reader,
    Readers,
    check_damping,
    damped,
    find_readers,
    moments,
)
from plprune.nodes.selection import excluded_groups
from plprune.norms import raised_for
from plprune.scores.probes import Probe
from plprune.scores.running import score
from plprune.scores.slices import NodeScores
from plprune.types import Apply, NodeGroups, Params


@score("inputs")
def obs(
    apply: Apply,
    params: Params,
    groups: NodeGroups,
    probe: Probe,
    *,
    update: bool = False,
    damping: float = 0.01,
    exclude: str | tuple[str, ...] = (),
) -> NodeScores:
    """Error of the layers that read a node, once it and all that cost less are gone.

    By the Gauss-Newton block of such a layer, H = X'X on the activations X that the probe gives it,
    its outputs X W lose tr(W_S' H_SS W_S) with the columns S of X; and tr(W_S' (H^-1_SS)^-1 W_S) if
    the weights that remain are updated by least squares, as `reconstruct` does it: the optimal
    brain surgeon [Hassibi 1993], for all weights of a node at once as in [Kurtic 2023]. Nodes go
    one after the other, always the one that adds least to the error of all that are gone, so that
    of two that repeat each other only one is cheap, and two that cancel are. Errors are parts of
    the outputs' second moment, summed over the layers that read the node.

    Args:
      apply: As given to `find_nodes`.
      params: Its parameters.
      groups: From `find_nodes`.
      probe: Some hundred inputs or more; labels and loss are not looked at.
      update: Whether `reconstruct` will follow; without it nodes are ranked for plain removal. The
        mean of what is removed then costs nothing where the layer has a bias to take it up.
      damping: Part of the mean of H's diagonal that is added to it for its inverse, above 0.
      exclude: Names or patterns of groups to give no scores.

    Raises:
      ValueError: a probe without inputs; a group that is read by anything but plain products with
        whole matrices (a loop, a grouped convolution, a tied embedding), by its name.

    Cost: one forward pass, with the rows of all layers in memory (a convolution's windows). For a
    layer with i inputs O(i^2) operations per output; with `update` also per weight of the nodes.
    """
    check_damping(damping, most=sys.float_info.max)
    excluded = excluded_groups(groups, exclude)
    names = [name for name in groups.prunable if name not in excluded]
    params, inputs = raised_for(apply, params, probe.inputs)
    readers = find_readers(apply, params, inputs, groups, names)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, inputs))]
    layers = [
        _layer(reader, leaves, square)
        for reader, square in zip(readers.found, _squares(readers, leaves, update), strict=True)
    ]
    errors = partial(_updated_errors, damping=damping) if update else _plain_errors

    def of(name):
        own = [(x, r) for x, r in zip(layers, readers.found, strict=True) if name in r.rows]
        return errors([x for x, _ in own], [_positions(r.rows[name]) for _, r in own])

    return {name: of(name) for name in names}


class _Layer(NamedTuple):
    """Second moment of a layer's inputs, or its inverse, and the weights."""

    square: Float[Array, "h i i"]
    weights: Float[Array, "h i o"]  # Divided by the root of the outputs' second moment.


def _squares(readers: Readers, leaves, update) -> list[Float[Array, "h i i"]]:
    """Second moments of what each reader is multiplied by."""
    owner = {index: k for k, reader in enumerate(readers.found) for index in reader.uses}
    place = {id(readers.graph.equations[index]): index for index in owner}
    found: dict[int, list[Array]] = defaultdict(list)

    def rule(equation, values):
        index = place.get(id(equation))
        if index is not None:
            reader = readers.found[owner[index]]
            rows, centred = reader.uses[index].rows(values), update and reader.bias is not None
            found[owner[index]].append(moments(rows, rows, centred=centred).square)
        return bind(equation, values)

    evaluate(readers.graph, leaves, rule)
    return [sum(own[1:], own[0]) for _, own in sorted(found.items())]


def _layer(reader: Reader, leaves, square) -> _Layer:
    weights = reader.matrix(leaves)
    energy = _einsum("hio,hij,hjo->", weights, square, weights)
    scale = jnp.sqrt(jnp.where(energy > 0, energy, jnp.inf))  # Silent layers lose nothing.
    return _Layer(square, weights / scale)


def _positions(rows: np.ndarray) -> np.ndarray:
    """[node, k]: the rows that read each node."""
    order = np.argsort(rows, kind="stable")
    return order[np.sum(rows < 0) :].reshape(rows.max() + 1, -1)


def _plain_errors(layers: list[_Layer], positions: list[np.ndarray]) -> Float[Array, " g"]:
    """Nodes go one by one, and all else stays."""
    pairs = [_einsum("hij,hio,hjo->ij", x.square, x.weights, x.weights) for x in layers]
    joint = jnp.stack(
        [
            pair[rows[:, None, :, None], rows[None, :, None, :]].sum((2, 3))
            for pair, rows in zip(pairs, positions, strict=True)
        ]
    ).sum(axis=0)  # [g, g]: the error of a set of nodes is the sum over its pairs.

    def costs(crossing, is_open):
        del is_open
        return jnp.diag(joint) + 2 * crossing

    def without(crossing, node):
        return crossing + joint[node]

    return _one_by_one(costs, without, jnp.zeros_like(joint[0]), len(joint), joint.dtype)


def _updated_errors(
    layers: list[_Layer], positions: list[np.ndarray], *, damping: float
) -> Float[Array, " g"]:
    """Nodes go one by one, and the weights that remain make up for each."""
    rows = [jnp.asarray(own) for own in positions]
    start = [x._replace(square=jnp.linalg.inv(damped(x.square, damping))) for x in layers]

    def costs(layers, is_open):
        return sum(_costs(x, own, is_open) for x, own in zip(layers, rows, strict=True))

    def without(layers, node):
        return [_without(x, own[node]) for x, own in zip(layers, rows, strict=True)]

    return _one_by_one(costs, without, start, len(rows[0]), start[0].square.dtype)


def _one_by_one(
    costs: Callable, without: Callable, start: Any, number: int, dtype: Any
) -> Float[Array, " g"]:
    """The error when each node goes, if always the cheapest goes next; later ones have more."""

    def remove(_, carry):
        memory, is_open, error, errors = carry
        added = costs(memory, is_open)
        node = jnp.argmin(jnp.where(is_open, added, jnp.inf))
        # Nodes that cancel others make errors smaller; they still went later.
        error = jnp.maximum(error + added[node], jnp.nextafter(error, jnp.inf))
        return without(memory, node), is_open.at[node].set(False), error, errors.at[node].set(error)

    carry = (start, jnp.ones(number, bool), jnp.zeros((), dtype), jnp.zeros(number, dtype))
    return jax.lax.fori_loop(0, number, remove, carry)[-1]


def _costs(layer: _Layer, rows, is_open):
    """[g]: tr(W_S' (H^-1_SS)^-1 W_S) of every node that is left."""
    own = layer.square[:, rows[:, :, None], rows[:, None, :]]
    # What is gone has zeros here; they would be divided by.
    own = jnp.where(is_open[:, None, None], own, jnp.eye(rows.shape[1], dtype=own.dtype))
    weights = layer.weights[:, rows]
    return jnp.sum(weights * jnp.linalg.solve(own, weights), axis=(0, 2, 3))


def _without(layer: _Layer, rows) -> _Layer:
    """The layer once the weights in some rows are zero and the others make up for it."""
    columns = layer.square[:, :, rows]
    own = columns[:, rows]
    joined = jnp.concatenate([jnp.swapaxes(columns, 1, 2), layer.weights[:, rows]], axis=2)
    change = _einsum("hik,hkj->hij", columns, jnp.linalg.solve(own, joined))
    size = layer.square.shape[1]
    return _Layer(layer.square - change[..., :size], layer.weights - change[..., size:])


_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
