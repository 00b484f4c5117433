# SPDX-License-Identifier: Apache-2.0
"""Smaller NNX modules: arrays cut, and the sizes that layers keep beside them adjusted."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from plprune.functional import functional
from plprune.functional.nnx import without_intermediates
from plprune.functional.parts import nested
from plprune.nodes.cutting import cut_leaf
from plprune.nodes.statics import Library, adjust, adjust_layers, names_float, scaled_leaf


def _cut(model, axes, shapes, layers):
    graph, state = nnx.split(without_intermediates(model))

    def smaller(path, leaf):
        name = ".".join(map(str, path))
        return cut_leaf(leaf, axes[name]) if name in axes else leaf

    flat = {path: smaller(path, leaf) for path, leaf in _flat(nnx.to_pure_dict(state)).items()}
    state = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(state, nested(flat))
    small = nnx.merge(graph, state)
    return small, adjust_layers(nnx.iter_modules(small), axes, shapes, layers, adjust)


def _flat(tree, prefix=()):
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {p: x for k, sub in tree.items() for p, x in _flat(sub, (*prefix, k)).items()}


def _scaled(module, factors):
    state = nnx.state(module, nnx.Param)
    for path, variable in nnx.to_flat_state(state):
        variable[...] = scaled_leaf(path, variable[...], factors)
    nnx.update(module, state)
    return module


def _widened(module):
    """A copy whose layers compute in float64 where they name a floating type."""
    module = nnx.clone(module)
    for _, layer in nnx.iter_modules(module):
        for name, value in list(vars(layer).items()):
            if names_float(value):
                setattr(layer, name, jnp.float64)
    return module


NNX = Library(lambda model, call: functional(model, call=call), _cut, _widened, _scaled)
