# SPDX-License-Identifier: Apache-2.0
"""NNX modules with smaller arrays, and the sizes that their layers keep adjusted to them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from plprune.functional import functional, without_intermediates
from plprune.nodes.agreement import Disagreement
from plprune.nodes.cutting import Axes, cut_leaf, kept_axes
from plprune.nodes.naming import display_paths
from plprune.nodes.statics import Cut, adjust
from plprune.types import Apply, Keep, NodeGroups


def smaller(
    model: nnx.Module, variables: Any, groups: NodeGroups, keep: Keep
) -> tuple[nnx.Module, dict[str, float]]:
    """The module with its arrays cut and its sizes adjusted, and factors of some leaves to come.

    Raises:
      Disagreement: the sizes of a layer cannot be adjusted.
    """
    axes = kept_axes(groups, keep)
    shown = dict(zip(groups.paths, display_paths(variables, groups.paths), strict=True))
    shapes = {shown[path]: shape for path, shape in groups.full_shapes.items()}
    axes = {shown[path]: kept for path, kept in axes.items()}
    layers = {shown[path]: along for path, along in groups.layers.items()}
    small = _cut_arrays(without_intermediates(model), axes)
    try:
        return small, _adjust(small, axes, shapes, layers)
    except Exception as error:
        raise Disagreement(f"cannot be built ({type(error).__name__}: {error})") from error


def _cut_arrays(model, axes):
    graph, state = nnx.split(model)

    def smaller(path, leaf):
        name = ".".join(map(str, path))
        return cut_leaf(leaf, axes[name]) if name in axes else leaf

    flat = {path: smaller(path, leaf) for path, leaf in _flat(nnx.to_pure_dict(state)).items()}
    state = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(state, _nested(flat))
    return nnx.merge(graph, state)


def _flat(tree, prefix=()):
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {p: x for k, sub in tree.items() for p, x in _flat(sub, (*prefix, k)).items()}


def _nested(flat):
    tree: dict = {}
    for path, leaf in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def _adjust(module, axes: Mapping[str, Axes], shapes, layers) -> dict[str, float]:
    """Set the sizes that layers hold; the factors by which their leaves make up for others."""
    factors = {}
    for path, layer in nnx.iter_modules(module):
        prefix = "".join(f"{key}." for key in path)
        own = {name[len(prefix) :]: name for name in axes if name.startswith(prefix)}
        cut = Cut(
            {short: _without(axes[name], layers.get(name, ())) for short, name in own.items()},
            {short: _without(shapes[name], layers.get(name, ())) for short, name in own.items()},
        )
        for short, factor in adjust(layer, cut).items():
            factors[own[short]] = factor
    return factors


def _without(axes, layers):
    """What there is of an axis each, but for those along which layers are stacked."""
    return tuple(x for d, x in enumerate(axes) if d not in layers)


def as_function(module: nnx.Module, factors: Mapping[str, float], call: Callable) -> Apply:
    """The smaller module as a function of the cut variables."""
    parts = functional(module, call=call)

    def apply(variables, inputs):
        params, state = variables
        flat = flatten_dict(params)
        scaled = {path: _times(leaf, factors.get(".".join(path))) for path, leaf in flat.items()}
        return parts.apply(unflatten_dict(scaled), state, inputs)

    return apply


def _times(leaf, factor):
    return leaf if factor is None else leaf * jnp.asarray(factor, leaf.dtype)


def rescale(module: nnx.Module, factors: Mapping[str, float]) -> None:
    """Multiply the leaves that have a factor, in place."""
    state = nnx.state(module, nnx.Param)
    for path, variable in nnx.to_flat_state(state):
        variable[...] = _times(variable[...], factors.get(".".join(map(str, path))))
    nnx.update(module, state)


def widened(module: nnx.Module) -> nnx.Module:
    """A copy whose layers compute in float64 where they name a floating type."""
    module = nnx.clone(module)
    for _, layer in nnx.iter_modules(module):
        for name, value in list(vars(layer).items()):
            if _names_float(value):
                setattr(layer, name, jnp.float64)
    return module


def _names_float(value):
    if isinstance(value, str):
        return value in ("bfloat16", "float16", "float32")
    return isinstance(value, type | np.dtype) and jnp.issubdtype(np.dtype(value), jnp.floating)
