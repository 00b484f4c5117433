# SPDX-License-Identifier: Apache-2.0
"""A small three-layer network, its groups, optimiser steps, and a record of gate updates."""

import jax
import jax.numpy as jnp
import optax

from plprune.nodes import find_nodes

SHAPES = {"in": (3, 8), "a": (8,), "mid": (8, 6), "b": (6,), "out": (6, 2), "c": (2,)}


def apply(params, inputs):
    x = jnp.tanh(inputs @ params["in"] + params["a"][None])
    x = jnp.tanh(x @ params["mid"] + params["b"][None])
    return x @ params["out"] + params["c"][None]


def draw(key, dtype=jnp.float32):
    keys = jax.random.split(key, len(SHAPES))
    pairs = zip(keys, SHAPES.items(), strict=True)
    return {name: jax.random.normal(k, shape, dtype) for k, (name, shape) in pairs}


PARAMS = draw(jax.random.key(1))
INPUTS = jax.random.normal(jax.random.key(2), (12, 3), jnp.float32)
LABELS = jnp.arange(12) % 2
GROUPS = find_nodes(apply, PARAMS, INPUTS)
FIRST, SECOND = GROUPS.prunable  # Of 8 and of 6 nodes.
GRADS = jax.tree.map(jnp.ones_like, PARAMS)
KEY = jax.random.key(3)


def forwards(apply, params, groups, probe):
    """Ranks nodes by their number; backwards where the inputs' sum is negative."""
    del apply, params
    sign = jnp.sign(jnp.sum(probe.inputs))
    return {name: sign * jnp.arange(float(n)) for name, n in groups.prunable.items()}


def stepper(transformation):
    """``(params, state, *, gradients, probe, ...) -> (params, state)``, compiled once."""

    @jax.jit
    def step(params, state, *, gradients=GRADS, probe=INPUTS, **extra):
        updates, state = transformation.update(gradients, state, params, probe=probe, **extra)
        return optax.apply_updates(params, updates), state

    return step


def slices(params, keep_first, keep_second):
    """Entries of each leaf that belong to open nodes only, as booleans."""
    ones = {name: jnp.ones(jnp.shape(p), bool) for name, p in params.items()}
    k, q = jnp.asarray(keep_first), jnp.asarray(keep_second)
    return ones | {
        "in": ones["in"] & k[None],
        "a": ones["a"] & k,
        "mid": ones["mid"] & k[:, None] & q[None],
        "b": ones["b"] & q,
        "out": ones["out"] & q[:, None],
    }


def closed_entries(params, keep):
    """What is left of each leaf at the nodes that are closed."""
    open_entries = slices(params, keep[FIRST], keep[SECOND])
    return [p[~open_entries[name]] for name, p in params.items()]


def recording(num_updates):
    """An optimiser that moves nothing; its state is the last gradients, [num_updates, ...] each."""

    def init(weights):
        return jax.tree.map(lambda w: jnp.full((num_updates, *w.shape), jnp.nan, w.dtype), weights)

    def update(gradients, seen, weights=None):
        del weights
        seen = jax.tree.map(lambda old, g: jnp.concatenate([old[1:], g[None]]), seen, gradients)
        return jax.tree.map(jnp.zeros_like, gradients), seen

    return optax.GradientTransformation(init, update)
