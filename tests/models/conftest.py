# SPDX-License-Identifier: Apache-2.0
"""Models with random values in every leaf, without compiling their initialisation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.costs import parameters
from plprune.functional import Functional, functional


class Filled(NamedTuple):
    net: Functional
    params: dict
    state: dict


def filled(build, call=None):
    """The model `build(rngs)` with normal weights of variance 1 / fan_in and positive vectors."""
    draw = np.random.default_rng(0)

    def fill(leaf):
        if len(leaf.shape) < 2:
            return draw.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        return (draw.normal(size=leaf.shape) / np.prod(leaf.shape[:-1]) ** 0.5).astype(leaf.dtype)

    module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    net = functional(module) if call is None else functional(module, call=call)
    params, state = jax.tree.map(lambda leaf: jnp.asarray(fill(leaf)), (net.params, net.state))
    return Filled(net, params, state)


@pytest.fixture
def fill():
    return filled


def shapes(build):
    """Shapes of the parameters of `build(rngs)`."""
    return jax.tree.map(lambda leaf: leaf.shape, filled(build).params)


@pytest.fixture
def shapes_of():
    return shapes


@pytest.fixture
def count_of():
    """Number of parameters of `build(rngs)`, from shapes alone."""

    def count(build):
        module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        return parameters(nnx.to_pure_dict(nnx.state(module, nnx.Param)))

    return count
