# SPDX-License-Identifier: Apache-2.0
"""Groups, keeps and functions of the zoo that the tests share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from zoo import CASES

from plprune.nodes import find_nodes, mask, resize, shrink


@cache
def found(name):
    """Groups of a case of the zoo, found once."""
    case = CASES[name]
    with jax.numpy_rank_promotion("allow"):  # Called at collection too.
        return find_nodes(case.apply, case.params, case.inputs, mode=case.mode)


def random_keep(groups, seed=0, closed=0.4):
    """A random keep that closes about `closed` of every prunable group, but at least one node."""
    draws = np.random.default_rng(seed)
    keep = {}
    for name, size in groups.prunable.items():
        count = min(size - 1, max(1, int(closed * size)))
        keep[name] = np.isin(np.arange(size), draws.permutation(size)[:count], invert=True)
    return keep


@cache
def masked_function(name):
    """Jitted ``keep -> apply(mask(params, keep), inputs)`` of a case."""
    case = CASES[name]
    return jax.jit(lambda keep: case.apply(mask(case.params, found(name), keep), case.inputs))


def shrunk_output(name, keep):
    """Outputs of the shrunk parameters."""
    case, groups = CASES[name], found(name)
    small = jax.jit(resize(case.apply, groups, keep))
    return small(shrink(case.params, groups, keep), case.inputs)


def shaped(build):
    """A model of shapes, with a random state; initialisation would be compiled."""
    graph, random, rest = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.RngState, ...)

    def zero(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return nnx.merge(graph, jax.tree.map(zero, random), rest)
