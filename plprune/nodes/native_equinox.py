# SPDX-License-Identifier: Apache-2.0
"""Smaller Equinox modules: arrays cut, and the sizes that layers keep beside them adjusted."""

import operator
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plprune.extras import optional
from plprune.functional import functional_equinox
from plprune.functional.parts import by_path, nested
from plprune.nodes.cutting import cut_leaf
from plprune.nodes.statics import Cut, Library, adjust_layers, names_float, scaled_leaves


def is_equinox(model: Any) -> bool:
    """Whether it is an Equinox module, or such a module with its state."""
    eqx = sys.modules.get("equinox")
    if eqx is None:
        return False
    if isinstance(model, tuple) and len(model) == 2:
        return isinstance(model[0], eqx.Module) and isinstance(model[1], eqx.nn.State)
    return isinstance(model, eqx.Module)


def _parts(model, call=operator.call):
    module, state = model if isinstance(model, tuple) else (model, None)
    return functional_equinox(module, state=state, call=call)


def _cut(model, axes, shapes, layers):
    parts = _parts(model)

    def smaller(tree):
        flat = {path: (".".join(path), leaf) for path, leaf in by_path(tree).items()}
        return nested(
            {
                path: cut_leaf(leaf, axes[name]) if name in axes else leaf
                for path, (name, leaf) in flat.items()
            }
        )

    small = parts.rebuild(smaller(parts.params), smaller(parts.state))
    return small, adjust_layers(layers_of(small), axes, shapes, layers, adjust)


def _widened(model):
    model = jax.tree.map(lambda leaf: leaf, model)  # Its modules are new objects.
    for _, layer in layers_of(model):
        floats = [name for name, value in vars(layer).items() if names_float(value)]
        _set(layer, **dict.fromkeys(floats, jnp.float64))
    return model


def _scaled(model, factors):
    if not factors:
        return model
    parts = _parts(model)
    return parts.rebuild(scaled_leaves(parts.params, factors), parts.state)


EQUINOX = Library(_parts, _cut, _widened, _scaled)


def layers_of(model) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every module within a module, itself first, by its path."""
    kind = optional("equinox").Module

    def below(node, path):
        if isinstance(node, kind):
            yield path, node
        inside = jax.tree.leaves_with_path(
            node, is_leaf=lambda x: x is not node and isinstance(x, kind)
        )
        for steps, child in inside:
            if isinstance(child, kind):
                keys = (jax.tree_util.keystr((step,), simple=True) for step in steps)
                yield from below(child, (*path, *keys))

    return below(model[0] if isinstance(model, tuple) else model, ())


def adjust(layer: Any, cut: Cut) -> dict[str, float]:
    """Set the sizes that a layer checks or computes with; other modules have none to set.

    Returns:
      Own leaf name -> the factor that makes up for a size which the layer computes with.
    """
    kinds = type(layer).__mro__ if cut.kept else ()
    ours = (kind.__name__ for kind in kinds if kind.__module__.startswith("equinox.nn."))
    rule = next((_RULES[name] for name in ours if name in _RULES), None)
    return (rule and rule(layer, cut)) or {}


def _set(layer, **sizes):
    """Fields of a frozen module that no one else holds."""
    for name, value in sizes.items():
        object.__setattr__(layer, name, value)


def _linear(layer, cut):
    made, read = cut.shape("weight", 2)
    if layer.in_features != "scalar":
        _set(layer, in_features=read)
    if layer.out_features != "scalar":
        _set(layer, out_features=made)


def _convolution(layer, cut):
    rank = layer.num_spatial_dims + 2
    made, read = cut.shape("weight", rank)[:2]
    groups = cut.blocks("weight", -rank, layer.groups)
    _set(layer, out_channels=made, in_channels=read * groups, groups=groups)


def _attention(layer, cut):
    """The layer divides scores by the square root of the head width that is left."""
    heads = cut.blocks("query_proj.weight", -2, layer.num_heads)
    sizes = {part: cut.shape(f"{part}_proj.weight", 2) for part in ("query", "key", "value")}
    width, full = sizes["query"][0] // heads, layer.qk_size
    _set(
        layer,
        num_heads=heads,
        qk_size=width,
        vo_size=sizes["value"][0] // heads,
        output_size=cut.size("output_proj.weight", -2),
        **{f"{part}_size": shape[1] for part, shape in sizes.items()},
    )
    leaves = ("query_proj.weight", "query_proj.bias") if width != full else ()
    return {name: float(np.sqrt(width / full)) for name in leaves if name in cut.kept}


def _mlp(layer, cut):
    """Its layers have their own sizes; these are for who reads them."""
    shapes = [cut.shape(f"layers.{k}.weight", 2) for k in range(len(layer.layers))]
    if layer.in_size != "scalar":
        _set(layer, in_size=shapes[0][1])
    if layer.out_size != "scalar":
        _set(layer, out_size=shapes[-1][0])
    _set(layer, width_size=max((made for made, _ in shapes[:-1]), default=layer.width_size))


def _shape(layer, cut):
    _set(layer, shape=cut.shape(next(iter(cut.kept)), len(layer.shape)))


def _group_norm(layer, cut):
    leaf = next(iter(cut.kept))
    groups = cut.blocks(leaf, -1, layer.groups)
    _set(layer, groups=groups, channels=cut.size(leaf, -1))


def _batch_norm(layer, cut):
    """Any leaf tells but the count of updates."""
    _set(layer, input_size=cut.size(next(n for n, axes in cut.kept.items() if axes), -1))


def _embedding(layer, cut):
    number, size = cut.shape("weight", 2)
    _set(layer, num_embeddings=number, embedding_size=size)


def _cell(layer, cut):
    _set(layer, input_size=cut.size("weight_ih", -1), hidden_size=cut.size("weight_hh", -1))


_RULES = {  # By name, as Equinox is imported by those alone who use it.
    "BatchNorm": _batch_norm,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Embedding": _embedding,
    "GRUCell": _cell,
    "GroupNorm": _group_norm,
    "LSTMCell": _cell,
    "LayerNorm": _shape,
    "Linear": _linear,
    "MLP": _mlp,
    "MultiheadAttention": _attention,
    "RMSNorm": _shape,
}
