# SPDX-License-Identifier: Apache-2.0
"""The function of shrunk parameters, for any model."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.paths import leaves_with_keys, printed
from plprune.graph.shrinking.resizing import Resizing
from plprune.nodes.checks import concrete_keep
from plprune.nodes.cutting import kept_axes, small_shapes
from plprune.nodes.discovery import Found, analyse, shape_of
from plprune.nodes.matching import parameter_leaves
from plprune.types import Apply, Inputs, Keep, NodeGroups, Params, Typed


def resize(apply: Apply, groups: NodeGroups, keep: Keep) -> Apply:
    """The function that takes shrunk parameters and equals `apply` at the masked full ones.

    `apply` is traced at the full parameter shapes and its equations are evaluated at the new
    sizes, so every function works for which nodes were found, with inputs of any batch size and
    length that it accepts. The result jits, vmaps and differentiates; custom derivatives of
    elementwise functions are kept.

    Args:
      apply: As given to `find_nodes`.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans or exact 0 and 1, concrete, as given to `shrink`.

    Returns:
      ``small(params, inputs)`` for `params` from `shrink`. It traces `apply` once per shape of the
      inputs.

    Raises:
      ValueError: as `shrink`; when called: parameters with other keys or shapes, or inputs for
        which `apply` has other node groups.
    """
    return resized(apply, groups, keep)


def resized(
    apply: Callable[[Params, Inputs], Any], groups: NodeGroups, keep: Keep, *, carries: bool = False
) -> Callable[[Params, Inputs], Any]:
    """`resize`, also of a function that returns a pair: outputs, and parameters that it changed.

    Args:
      apply: Of the parameters that the groups were found on.
      groups: From `find_nodes` on a function with the same nodes.
      keep: As `resize` takes it.
      carries: Whether it is a pair, whose second part is then as small as the parameters are.
    """
    concrete = concrete_keep(keep, groups)
    shapes = small_shapes(kept_axes(groups, keep))
    order = {leaf.keys: leaf.value for leaf in parameter_leaves(groups)}

    # What is remembered is no part of what the function is: it is the same after every call.
    @cache
    def plan(structure, places, types, inputs_structure, given):
        full = map(jax.ShapeDtypeStruct, groups.shapes, types)
        full = jax.tree.unflatten(groups.structure, full)
        own = _rearranged(apply, structure, places)
        inputs = jax.tree.unflatten(inputs_structure, [shape for shape, _ in given])
        return _plan(own, full, inputs, groups, concrete, carries)

    def small(params, inputs):
        leaves, places, structure = _in_order(params, order, groups, shapes)
        flat_inputs, inputs_structure = jax.tree.flatten(inputs)
        types = tuple(shape_of(x).dtype for x in leaves)
        given = tuple(map(_key, flat_inputs))
        found, resizing = plan(structure, tuple(places), types, inputs_structure, given)
        outputs = resizing.evaluate(found.graph, [*leaves, *flat_inputs])
        return jax.tree.unflatten(found.graph.out_tree, outputs)

    return small


def _key(leaf):
    return shape_of(leaf), getattr(leaf, "weak_type", False)


def _plan(apply, params, shaped, groups, keep, carries) -> tuple[Found, Resizing]:
    """The graph at these input shapes, with the atoms of the closed nodes."""
    options = {"mode": groups.mode, "statistics": groups.statistics, "carries": carries}
    found = analyse(apply, params, shaped, **options)
    removed = set()
    for name, kept in keep.items():
        if not kept.all():
            own = _counterpart(found.groups, groups[name])
            if own is None:
                raise ValueError(f"The nodes of {name} differ at inputs {jax.tree.leaves(shaped)}.")
            removed |= {a for a, stays in zip(found.atoms[own], kept, strict=True) if not stays}
    return found, Resizing(found.labels, frozenset(removed))


def _counterpart(groups, group) -> str | None:
    """The group with the same nodes; another mode of the model may have it by another name."""
    names = dict.fromkeys([group.name, *groups])
    return next((n for n in names if n in groups and _same(groups[n], group)), None)


def _same(one, other):
    """Whether two groups have the same members and can both be pruned."""
    if not one.prunable or len(one.members) != len(other.members):
        return False
    pairs = zip(one.members, other.members, strict=True)
    return all(a[:2] == b[:2] and np.array_equal(a.index, b.index) for a, b in pairs)


def _in_order(params, order, groups, shapes):
    """The leaves in the groups' order, the place of each there, and the tree's own structure."""
    found = leaves_with_keys(params)
    known = [leaf.keys for leaf in found]
    for keys, place in order.items():
        if keys not in known:
            raise ValueError(
                "params must have the structure of the shrunk parameters: leaf "
                f"{groups.paths[place]} is missing, got {list(printed(known))}."
            )
    for name, keys in zip(printed(known), known, strict=True):
        if keys not in order:
            raise ValueError(
                f"params must have the structure of the shrunk parameters: leaf {name} is unknown."
            )
    places = [order[keys] for keys in known]
    leaves = [None] * len(places)
    for place, leaf in zip(places, found, strict=True):
        leaves[place], path = leaf.value, groups.paths[place]
        if jnp.shape(leaf.value) != shapes[path]:
            raise ValueError(
                f"params: {path} must have shape {shapes[path]}, got {jnp.shape(leaf.value)}."
            )
    return leaves, places, jax.tree.structure(params)


def _rearranged(apply, structure, places) -> Apply:
    """`apply` of the tree that the caller holds, on the one that the groups were found on."""

    def own(params, inputs):
        leaves = jax.tree.leaves(params)
        return apply(jax.tree.unflatten(structure, [leaves[k] for k in places]), inputs)

    return Typed(own, apply.kinds) if isinstance(apply, Typed) else own
