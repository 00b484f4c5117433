# SPDX-License-Identifier: Apache-2.0
"""Layers that are stacked for a scan, taken apart."""

from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plprune.graph.linear.roles import LeafAxis, roles
from plprune.graph.paths import leaves_with_keys, printed
from plprune.graph.tracing import Graph, trace
from plprune.graph.unrolling import evaluate_unrolled, layers_of
from plprune.nodes.discovery import shape_of
from plprune.types import Apply, Inputs, Params, Typed


def unstack(apply: Apply, params: Params, inputs: Inputs) -> tuple[Apply, Params]:
    """The same function of single layers: ``(apply, params)`` with no layer stacked on another.

    Where layers are stacked for a scan (`flax.nnx.scan`, `flax.linen.scan`, Haiku's `layer_stack`,
    `jax.lax.scan` over parameters), a node closes in all of them at once, since their weights are
    slices of one array. Apart, `find_nodes` gives each layer groups of its own, and so budgets,
    scores and gates hold per layer:

        apply, params = plprune.nodes.unstack(apply, params, inputs)
        groups = plprune.find_nodes(apply, params, inputs)  # "blocks.0.up", "blocks.1.up", ...

    The largest sub-trees whose leaves are all stacked alike, below the collections, become lists of
    layers: "blocks.up.kernel" [3, 8, 32] is "blocks.0.up.kernel" [8, 32] and two more. A leaf that
    is stacked beside others that are not becomes a list itself. Classes of variables stay known.
    Why this is the same function: docs/mathematics/graph.md.

    Args:
      apply: Any function that `find_nodes` takes.
      params: Its parameters, or their shapes.
      inputs: An example batch, or its shapes.

    Returns:
      ``(single, layers)``, where ``single(layers, inputs)`` is ``apply(params, inputs)``, up to the
      rounding of a program that is compiled as a whole. The loop over layers is a Python loop, for
      inputs of any shape that `apply` takes. Under jit, grad and vmap as `apply`; what a scan or a
      `jax.checkpoint` around a layer saves in memory and in compilation is gone.

    Raises:
      ValueError: no scan of `apply` steps along layers of `params`, or a loop reads its layers by
        number instead. ``single`` raises it for
        parameters of another structure or other shapes.

    Cost: a trace of `apply` and a copy of the stacked leaves; ``single`` traces it once per shape
    of the inputs.
    """
    graph = trace(apply, params, inputs)
    leaves, structure = jax.tree.flatten(params)
    uses = roles(graph, len(leaves))
    axes = _layer_axes(graph, uses.stepped)
    if uses.numbered and not axes:
        names = sorted({graph.paths[0][leaf] for leaf, _ in uses.numbered})
        raise ValueError(
            f"apply must step along its layers: it reads those of {names} by a number in a loop; "
            "give the stacked weights to jax.lax.scan as `xs`."
        )
    if not axes:
        raise ValueError(
            "params must hold layers that are stacked: no scan of apply steps along weights of "
            "theirs."
        )
    sizes = {k: tuple(graph.shape(graph.inputs[k])[d] for d in own) for k, own in axes.items()}
    plan = _parted(structure.unflatten(range(len(leaves))), sizes, _collections(params))
    order = leaves_with_keys(plan, lambda x: isinstance(x, _Piece))
    pieces = jax.tree.map(
        lambda piece: _piece(leaves[piece.leaf], axes.get(piece.leaf, ()), piece.at),
        plan,
        is_leaf=lambda x: isinstance(x, _Piece),
    )
    shapes = [graph.shape(v) for v in graph.inputs[: len(leaves)]]
    whole = _Whole(structure, shapes, axes, sizes)
    single = _single(apply, whole, order)
    if not isinstance(apply, Typed):
        return single, pieces
    keys = [leaf.keys for leaf in leaves_with_keys(params)]
    kinds = {leaf.keys: apply.kinds.get(keys[leaf.value.leaf]) for leaf in order}
    return Typed(single, {k: kind for k, kind in kinds.items() if kind is not None}), pieces


class _Piece(NamedTuple):
    """A leaf, or the layer of it at an index."""

    leaf: int
    at: tuple[int, ...] = ()


class _Whole(NamedTuple):
    """What the stacked parameters look like."""

    structure: Any
    shapes: list[tuple[int, ...]]
    axes: Mapping[int, tuple[int, ...]]  # Leaf -> axes that layers lie along.
    sizes: Mapping[int, tuple[int, ...]]  # How many there are along each.


def _layer_axes(graph: Graph, stepped: Iterable[LeafAxis]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for leaf, axis in sorted(stepped):
        if graph.shape(graph.inputs[leaf])[axis]:
            found[leaf] = (*found.get(leaf, ()), axis)
    return found


def _collections(params) -> int:
    """How many levels of the tree hold collections of parameters: these are no layers."""
    is_pair = type(params) is tuple and all(isinstance(p, Mapping) for p in params)
    return 2 if is_pair or (isinstance(params, Mapping) and "params" in params) else 1


def _parted(node, sizes, above):
    """A tree of leaves' numbers with lists of layers for its largest sub-trees of one size."""
    inside = jax.tree.leaves(node)
    found = {sizes.get(k, ()) for k in inside}
    if len(found) == 1 and (above <= 0 or isinstance(node, int)):
        (lengths,) = found
        return _listed(node, lengths, ())
    children, level = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
    return level.unflatten([_parted(child, sizes, above - 1) for child in children])


def _listed(node, lengths, at):
    if not lengths:
        return jax.tree.map(lambda k: _Piece(k, at), node)
    return [_listed(node, lengths[1:], (*at, k)) for k in range(lengths[0])]


def _piece(leaf, axes, at):
    """The part of a leaf at an index along some axes; shapes have shapes for parts."""
    if not axes:
        return leaf
    index = [slice(None)] * jnp.ndim(leaf)
    for axis, k in zip(axes, at, strict=True):
        index[axis] = k
    take = partial(_taken, tuple(index))
    return jax.eval_shape(take, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else take(leaf)


def _taken(index, leaf):
    return leaf[index]


def _single(apply, whole: _Whole, order) -> Apply:
    """The function of the pieces, which are listed in `order`."""
    first = _first(order)

    # What is remembered is no part of what the function is: it is the same after every call.
    @cache
    def traced(types, inputs_structure, given):
        stacked = map(jax.ShapeDtypeStruct, whole.shapes, types)
        inputs = inputs_structure.unflatten(
            jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=weak) for x, weak in given
        )
        return trace(apply, whole.structure.unflatten(stacked), inputs)

    def single(params, inputs):
        leaves = _in_order(params, whole, order)
        arrays, inputs_structure = jax.tree.flatten(inputs)
        types = tuple(shape_of(leaves[place]).dtype for place in first)
        given = tuple((shape_of(x), bool(getattr(x, "weak_type", False))) for x in arrays)
        graph = traced(types, inputs_structure, given)
        outputs = evaluate_unrolled(graph, [*_values(leaves, whole, order), *arrays])
        return jax.tree.unflatten(graph.out_tree, outputs)

    return single


def _first(order):
    """For each leaf, the place of one of its pieces."""
    places = {leaf.value.leaf: place for place, leaf in enumerate(order)}
    return [places[k] for k in sorted(places)]


def _values(leaves, whole: _Whole, order):
    """The leaves of the stacked parameters, those with layers in pieces."""
    found = {leaf.value: x for leaf, x in zip(order, leaves, strict=True)}
    for k in range(len(whole.shapes)):
        if k in whole.axes:
            yield layers_of(whole.axes[k], whole.sizes[k], lambda at, k=k: found[_Piece(k, at)])
        else:
            yield found[_Piece(k)]


def _in_order(params, whole: _Whole, order):
    """Leaves as listed in `order`; ValueError where they are not those of single layers."""
    given = {leaf.keys: leaf.value for leaf in leaves_with_keys(params)}
    names = dict(zip((leaf.keys for leaf in order), printed([x.keys for x in order]), strict=True))
    wrong = [names.get(keys, printed([keys])[0]) for keys in given.keys() ^ names.keys()]
    if wrong:
        raise ValueError(f"params must hold single layers; missing or unknown: {sorted(wrong)}.")
    for leaf in order:
        full, axes = whole.shapes[leaf.value.leaf], whole.axes.get(leaf.value.leaf, ())
        shape, found = tuple(n for d, n in enumerate(full) if d not in axes), given[leaf.keys]
        if jnp.shape(found) != shape:
            raise ValueError(
                f"params: {names[leaf.keys]} must have shape {shape}, got {jnp.shape(found)}."
            )
    return [given[leaf.keys] for leaf in order]
