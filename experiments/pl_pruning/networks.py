# SPDX-License-Identifier: Apache-2.0
"""The networks of the zoo at full size, and native ones at the sizes that pruning leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments.pl_pruning.data import Splits
from experiments.pl_pruning.deep import DeepMLP
from experiments.pl_pruning.settings import Network
from plprune.functional import Functional, functional
from plprune.gating.options import gated_sizes
from plprune.models import CNN, MLP, VGG, Encoder, ResNet, SwitchTransformer
from plprune.nodes import find_nodes, node_flops, shrink_model
from plprune.types import NodeGroups

Counts = tuple[tuple[str, int], ...]  # Group name -> nodes that are left; all groups that prune.


class Shape(NamedTuple):
    """What a network depends on of the data."""

    inputs: tuple[int, ...]  # Of one example.
    dtype: Any
    outputs: int


def shape_of(splits: Splits) -> Shape:
    """The shapes of a data set's examples; tokens are int32."""
    inputs = splits.train.inputs
    text = np.issubdtype(inputs.dtype, np.integer)
    return Shape(inputs.shape[1:], np.dtype("int32" if text else "float32"), splits.num_outputs)


# Kind -> (shape, *, rngs, **sizes) -> module.
BUILDERS: dict[str, Callable[..., nnx.Module]] = {
    "mlp": lambda shape, **own: MLP(int(np.prod(shape.inputs)), out_features=shape.outputs, **own),
    "deep": lambda shape, **own: DeepMLP(
        int(np.prod(shape.inputs)), out_features=shape.outputs, **own
    ),
    "cnn": lambda shape, **own: CNN(shape.inputs, out_features=shape.outputs, **own),
    "vgg": lambda shape, **own: VGG(shape.inputs[-1], out_features=shape.outputs, **own),
    "resnet": lambda shape, **own: ResNet(shape.inputs[-1], out_features=shape.outputs, **own),
    "encoder": lambda shape, **own: Encoder(shape.outputs, shape.inputs[0], **own),
    "switch": lambda shape, **own: SwitchTransformer(shape.outputs, shape.inputs[0], **own),
}


def build(network: Network, shape: Shape, key: jax.Array) -> nnx.Module:
    """The network with initial weights drawn by `key`."""
    return BUILDERS[network.kind](shape, rngs=nnx.Rngs(key), **dict(network.sizes))


class Net(NamedTuple):
    """A network of some size, whose own parameters are not used."""

    model: Functional
    train: Functional  # Another call where training needs more than the outputs.


@dataclass(frozen=True, eq=False)
class Dense:
    """The network at full size and its nodes."""

    net: Net
    groups: NodeGroups  # Found on (params, state).
    sizes: dict[str, int]  # Of the groups that may lose nodes.
    experts: tuple[str, ...]  # Those that no gate can scale, chosen by a score.


@cache
def dense(network: Network, shape: Shape) -> Dense:
    """One object for all regimes, so that what is compiled for it serves them all."""
    # Shapes alone: a network of a paper's size takes long to draw.
    net = _net(nnx.eval_shape(lambda: _template(network, shape)), network)
    pair, inputs = (net.model.params, net.model.state), _example(shape)
    groups = find_nodes(lambda v, x: net.model.apply(v[0], v[1], x), pair, inputs)
    experts = tuple(name for name in groups.prunable if groups[name].kind == "expert")
    sizes = gated_sizes(groups, network.exclude, within_heads=True)
    return Dense(net, groups, sizes | {name: groups[name].size for name in experts}, experts)


@cache
def node_costs(network: Network, shape: Shape) -> tuple[tuple[str, float], ...]:
    """FLOPs of one example that go when one node of a group goes; for every group that prunes."""
    full = dense(network, shape)
    model, inputs = full.net.model, jax.ShapeDtypeStruct((1, *shape.inputs), shape.dtype)
    pair = model.params, model.state
    found = node_flops(lambda v, x: model.apply(v[0], v[1], x), pair, full.groups, inputs)
    return tuple(found.items())


@cache
def shrunk(network: Network, shape: Shape, counts: Counts) -> Net:
    """The native network with as many nodes of each group."""
    full = dense(network, shape)
    if all(full.sizes[name] == count for name, count in counts):
        return full.net
    keep = {name: np.arange(full.sizes[name]) < count for name, count in counts}
    return _net(shrink_model(_template(network, shape), full.groups, keep), network)


def counts_of(keep: dict[str, np.ndarray]) -> Counts:
    """How many nodes of each group are kept."""
    return tuple((name, int(np.sum(kept))) for name, kept in keep.items())


def _template(network, shape):
    return build(network, shape, jax.random.key(0))


def _example(shape):
    return jax.ShapeDtypeStruct((2, *shape.inputs), shape.dtype)


def _net(module, network):
    model = functional(module)
    if network.kind != "switch":
        return Net(model, model)
    return Net(model, functional(module, call=lambda module, x: module.balanced(x)))
