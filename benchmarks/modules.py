# SPDX-License-Identifier: Apache-2.0
"""Flax models whose parameters NumPy draws: nothing compiles before a clock starts."""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from plprune.functional import Functional, functional
from plprune.types import Apply, Params


def drawn(make: Callable[[nnx.Rngs], nnx.Module], seed: int = 0) -> Functional:
    """The model of a constructor: weights normal, of variance 2 / fan_in, scales 1, the rest 0."""
    rng = np.random.default_rng(seed)
    parts = functional(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            value = rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            value = np.full(leaf.shape, float(name in ("scale", "var")))
        return value.astype(np.float32)

    params, state = (jax.tree.map_with_path(draw, tree) for tree in (parts.params, parts.state))
    return parts._replace(params=params, state=state)


def in_evaluation(parts: Functional) -> tuple[Apply, Params]:
    """`apply(params, inputs)`, its running statistics held constant, and the parameters."""
    state = parts.state
    return lambda params, inputs: parts.apply(params, state, inputs), parts.params
