# SPDX-License-Identifier: Apache-2.0
"""Real images with targets +-1, and networks with one output, in float64."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plprune.data import load
from plprune.functional import functional
from plprune.models import CNN, MLP, ResNet

SIDE = 4  # Of images averaged over blocks.


class System(NamedTuple):
    """A square-loss problem F(w) = y."""

    apply: Callable  # (params, inputs) -> [n, 1].
    params: Any
    inputs: jax.Array
    targets: jax.Array  # [n]


def examples(dataset: str, count: int, seed: int, *, pooled: bool = False, flat: bool = True):
    """Images [n, d] less the mean image, each of norm sqrt(d), and +-1 for even and odd labels."""
    images, labels = _training(dataset)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    centred = images[chosen] - images.mean(axis=0)
    if pooled:
        block = centred.shape[1] // SIDE
        shape = (count, SIDE, block, SIDE, block, -1)
        centred = centred.reshape(shape).mean(axis=(2, 4))
    inputs = centred.reshape(count, -1)
    inputs = inputs * (inputs.shape[1] ** 0.5 / np.linalg.norm(inputs, axis=1, keepdims=True))
    targets = np.where(labels[chosen] % 2 == 0, 1.0, -1.0)
    return jnp.asarray(inputs if flat else inputs.reshape(centred.shape)), jnp.asarray(targets)


@functools.cache
def _training(dataset):
    loaded = load(dataset, split="train")
    return loaded.images.astype(np.float64), loaded.labels


@functools.cache
def perceptron(in_features: int, width: int, parameterization: str = "ntk"):
    """(apply, init) of a tanh network with one hidden layer."""

    def parts(seed):
        options = {"activation": "tanh", "parameterization": parameterization}
        return functional(MLP(in_features, (width,), 1, rngs=nnx.Rngs(seed), **options))

    return _pure(parts)


@functools.cache
def model(name: str, size: int, side: int):
    """(apply, init) of a network whose width is `size`, for images [b, side, side, 1]."""

    def parts(seed):
        rngs = nnx.Rngs(seed)
        if name == "cnn":
            options = {"batch_norm": False, "pooling": "average", "activation": "tanh"}
            return functional(CNN((side, side, 1), (size,), (), 1, rngs=rngs, **options))
        if name == "resnet":
            return functional(ResNet(1, (1,), (size,), 1, rngs=rngs))
        return functional(MLP(side * side, (size,), 1, activation="tanh", rngs=rngs))

    return _pure(parts)


def _pure(parts):
    first = parts(0)

    def apply(params, inputs):
        return first.apply(params, first.state, inputs)

    def init(seed):
        # On the host, where no program is compiled for every shape.
        return jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), parts(seed).params)

    return apply, init


def signs(params):
    """The same weights with an output layer of +-1."""
    output = params["output"]
    return params | {"output": output | {"kernel": jnp.sign(output["kernel"])}}


def num_parameters(params) -> int:
    """How many parameters there are."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
