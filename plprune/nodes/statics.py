# SPDX-License-Identifier: Apache-2.0
"""Sizes that NNX layers keep beside their arrays, adjusted to smaller arrays."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from plprune.functional.parts import Functional, by_path, nested

Axes = list[np.ndarray]  # Of a leaf: per axis, the kept positions.


class Cut(NamedTuple):
    """How the leaves of one layer were cut."""

    kept: Mapping[str, Axes]  # By own leaf name.
    full: Mapping[str, tuple[int, ...]]  # Own leaf name -> shape before.

    def size(self, name: str, axis: int) -> int:
        """New size of an axis."""
        return len(self.kept[name][axis])

    def shape(self, name: str, rank: int | None = None) -> tuple[int, ...]:
        """New shape of a leaf, or of its last `rank` axes: layers may be stacked before them."""
        return tuple(map(len, self.kept[name]))[-(rank or 0) :]

    def blocks(self, name: str, axis: int, count: int) -> int:
        """How many of `count` equal blocks of an axis keep any position."""
        width = self.full[name][axis] // count
        return len(np.unique(self.kept[name][axis] // width))


class Library(NamedTuple):
    """What shrinking asks of a library of modules."""

    parts: Callable[[Any, Callable], Functional]  # (module, call) -> the module taken apart.
    # (module, kept positions, shapes before, axes of layers) -> a smaller module, and factors of
    # leaves to come.
    cut: Callable[..., tuple[Any, dict[str, float]]]
    widened: Callable[[Any], Any]  # A copy whose layers compute in float64 where they name a type.
    scaled: Callable[[Any, Mapping[str, float]], Any]  # With its leaves times these factors.


def scaled_leaves(tree: Any, factors: Mapping[str, float]) -> Any:
    """Nested dictionaries in which the leaves that have a factor, by their name, are times it."""
    leaves = by_path(tree).items()
    return nested({path: scaled_leaf(path, leaf, factors) for path, leaf in leaves})


def scaled_leaf(path: Iterable[Any], leaf: Any, factors: Mapping[str, float]) -> Any:
    """A leaf times its factor, if it has one by its name, the keys of its path joined by dots."""
    factor = factors.get(".".join(map(str, path)))
    return leaf if factor is None else leaf * jnp.asarray(factor, leaf.dtype)


def adjust_layers(
    layers: Iterable[tuple[tuple, Any]],
    axes: Mapping[str, Axes],
    shapes: Mapping[str, tuple[int, ...]],
    stacked: Mapping[str, Collection[int]],
    adjust: Callable[[Any, Cut], dict[str, float]],
) -> dict[str, float]:
    """`adjust` every layer, given with its path, to how its leaves were cut.

    Along the axes in `stacked` layers lie side by side: a single one has no such axis.

    Returns:
      Leaf name -> the factor that makes up for a size which its layer computes with.
    """
    factors = {}
    for path, layer in layers:
        prefix = "".join(f"{key}." for key in path)
        own = {name[len(prefix) :]: name for name in axes if name.startswith(prefix)}
        cut = Cut(
            {short: _without(axes[name], stacked.get(name, ())) for short, name in own.items()},
            {short: _without(shapes[name], stacked.get(name, ())) for short, name in own.items()},
        )
        for short, factor in adjust(layer, cut).items():
            factors[own[short]] = factor
    return factors


def _without(axes, stacked):
    return tuple(x for d, x in enumerate(axes) if d not in stacked)


def names_float(value: Any) -> bool:
    """Whether what a layer keeps is a floating type, or the name of one."""
    if isinstance(value, str):
        return value in ("bfloat16", "float16", "float32")
    return isinstance(value, type | np.dtype) and jnp.issubdtype(np.dtype(value), jnp.floating)


def adjust(layer: nnx.Module, cut: Cut) -> dict[str, float]:
    """Set the sizes that a layer checks or computes with; other modules have none to set.

    Returns:
      Own leaf name -> the factor that makes up for a size which the layer computes with.
    """
    rule = next((rule for kind, rule in _RULES.items() if isinstance(layer, kind)), None)
    return (rule and rule(layer, cut)) or {}


def _linear(layer, cut):
    layer.in_features, layer.out_features = cut.shape("kernel", 2)


def _linear_general(layer, cut):
    count = len(layer.in_features)
    shape = cut.shape("kernel", count + len(layer.out_features))
    layer.in_features, layer.out_features = shape[:count], shape[count:]


def _convolution(layer, cut):
    shape = cut.shape("kernel", len(layer.kernel_shape))
    groups = cut.blocks("kernel", -1, layer.feature_group_count)
    layer.kernel_shape, layer.feature_group_count = shape, groups
    layer.in_features, layer.out_features = shape[-2] * groups, shape[-1]


def _transposed(layer, cut):
    layer.kernel_shape = shape = cut.shape("kernel", len(layer.kernel_shape))
    features = shape[:-3:-1] if layer.transpose_kernel else shape[-2:]
    layer.in_features, layer.out_features = features[0], features[1]


def _features(layer, cut):
    """Any leaf tells; a normalisation without leaves serves every width."""
    if cut.kept:
        layer.num_features = cut.size(next(iter(cut.kept)), -1)


def _group_norm(layer, cut):
    if cut.kept:
        layer.num_groups = cut.blocks(next(iter(cut.kept)), -1, layer.num_groups)
        _features(layer, cut)


def _embedding(layer, cut):
    layer.num_embeddings, layer.features = cut.shape("embedding", 2)


def _attention(layer, cut):
    """The layer divides scores by the square root of the head width that is left."""
    layer.in_features, layer.num_heads, layer.head_dim = cut.shape("query.kernel", 3)
    layer.qkv_features = layer.num_heads * layer.head_dim
    layer.out_features = cut.size("out.kernel", -1)
    factor = float(np.sqrt(layer.head_dim / cut.full["query.kernel"][-1]))
    leaves = ("query.kernel", "query.bias") if factor != 1 else ()
    return {name: factor for name in leaves if name in cut.kept}


def _cell(layer, cut):
    """Recurrent cells: some kernel reads the hidden state; its axis 0 is the hidden width."""
    recurrent = next(n for n in ("hi", "dense_h") if f"{n}.kernel" in cut.kept)
    layer.hidden_features = cut.size(f"{recurrent}.kernel", -2)


_RULES: dict[type, Callable[[nnx.Module, Cut], dict[str, float] | None]] = {
    nnx.MultiHeadAttention: _attention,
    nnx.LinearGeneral: _linear_general,
    nnx.Linear: _linear,
    nnx.ConvTranspose: _transposed,
    nnx.Conv: _convolution,
    nnx.GroupNorm: _group_norm,
    nnx.BatchNorm: _features,
    nnx.LayerNorm: _features,
    nnx.RMSNorm: _features,
    nnx.InstanceNorm: _features,
    nnx.Embed: _embedding,
    nnx.LSTMCell: _cell,
    nnx.OptimizedLSTMCell: _cell,
    nnx.GRUCell: _cell,
    nnx.SimpleCell: _cell,
}
