# SPDX-License-Identifier: Apache-2.0
"""The function of shrunk parameters, for any model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.graph.resizing import Resizing
from plprune.nodes.checks import concrete_keep
from plprune.nodes.cutting import kept_axes, small_shapes
from plprune.nodes.discovery import Found, analyse, shape_of
from plprune.types import Apply, Keep, NodeGroups


def resize(apply: Apply, groups: NodeGroups, keep: Keep) -> Apply:
    """The function that takes shrunk parameters and equals `apply` at the masked full ones.

    `apply` is traced at the full parameter shapes and its equations are evaluated at the new
    sizes, so every function works for which nodes were found, with inputs of any batch size and
    length that it accepts. The result jits, vmaps and differentiates; custom derivatives of
    elementwise functions are kept.

    Args:
      apply: As given to `find_nodes`.
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans, concrete, as given to `shrink`.

    Returns:
      ``small(params, inputs)`` for `params` from `shrink`. It traces `apply` once per shape of the
      inputs.

    Raises:
      ValueError: as `shrink`; when called: parameters of another shape, or inputs for which
        `apply` has other node groups.
    """
    concrete = concrete_keep(keep, groups)
    shapes = small_shapes(kept_axes(groups, keep))
    cache: dict[Any, tuple[Found, Resizing]] = {}

    def small(params, inputs):
        leaves, structure = jax.tree.flatten(params)
        _check_shapes(leaves, structure, groups, shapes)
        flat_inputs, inputs_structure = jax.tree.flatten(inputs)
        types = [shape_of(x).dtype for x in leaves]
        key = (tuple(types), inputs_structure, tuple(map(_key, flat_inputs)))
        if key not in cache:
            full = [
                jax.ShapeDtypeStruct(shape, dtype)
                for shape, dtype in zip(groups.shapes, types, strict=True)
            ]
            full = jax.tree.unflatten(structure, full)
            cache[key] = _plan(apply, full, inputs, groups, concrete)
        found, resizing = cache[key]
        outputs = resizing.evaluate(found.graph, [*leaves, *flat_inputs])
        return jax.tree.unflatten(found.graph.out_tree, outputs)

    return small


def _key(leaf):
    return shape_of(leaf), getattr(leaf, "weak_type", False)


def _plan(apply, params, inputs, groups, keep) -> tuple[Found, Resizing]:
    """The graph at these input shapes, with the atoms of the closed nodes."""
    shaped = jax.tree.map(shape_of, inputs)
    found = analyse(apply, params, shaped, mode=groups.mode, statistics=groups.statistics)
    removed = set()
    for name, kept in keep.items():
        if not kept.all():
            if not _same(found.groups.by_name.get(name), groups[name]):
                raise ValueError(f"The nodes of {name} differ at inputs {jax.tree.leaves(shaped)}.")
            removed |= {a for a, stays in zip(found.atoms[name], kept, strict=True) if not stays}
    return found, Resizing(found.labels, frozenset(removed))


def _same(one, other):
    """Whether two groups have the same members and can both be pruned."""
    if one is None or not one.prunable or len(one.members) != len(other.members):
        return False
    pairs = zip(one.members, other.members, strict=True)
    return all(a[:2] == b[:2] and np.array_equal(a.index, b.index) for a, b in pairs)


def _check_shapes(leaves, structure, groups, shapes):
    if structure != groups.structure:
        raise ValueError(f"params must have the structure {groups.structure}, got {structure}.")
    for path, leaf in zip(groups.paths, leaves, strict=True):
        if jnp.shape(leaf) != shapes[path]:
            raise ValueError(
                f"params: {path} must have shape {shapes[path]}, got {jnp.shape(leaf)}."
            )
