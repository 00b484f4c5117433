# SPDX-License-Identifier: Apache-2.0
"""Masked equals shrunk in single precision for Flax models, NNX and Linen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discovered import random_keep, shaped
from flax import linen
from flax_zoo import (
    Convolutions,
    Decoder,
    LinenConvolutions,
    LinenDecoder,
    LinenEncoder,
    LinenMLP,
    LinenSwitch,
    LinenUnrolled,
    Unrolled,
)
from zoo import fill, normal

from plprune import models
from plprune.functional import functional, paired
from plprune.nodes import find_nodes, mask, resize, shrink

IMAGES, VECTORS, SEQUENCES = (
    normal(*shape).astype(jnp.float32) for shape in ((2, 4, 4, 3), (3, 4), (2, 2, 3))
)
TOKENS = jnp.arange(10).reshape(2, 5) % 7
SIZES = (7, 5, 4, 1, 2, 6)  # Vocabulary, positions, features, layers, heads, width.

# The constructor, the inputs, and a kind of groups that must be prunable.
MODELS = {
    "MLP": (lambda rngs: models.MLP(4, (6, 5), 2, rngs=rngs), VECTORS, "neuron"),
    "CNN": (lambda rngs: models.CNN((4, 4, 3), (4, 5), (6,), 2, rngs=rngs), IMAGES, "channel"),
    "VGG": (
        lambda rngs: models.VGG(3, ((4,), (5, 4)), (6,), 2, conv_bias=True, rngs=rngs),
        IMAGES,
        "channel",
    ),
    "ResNet": (
        lambda rngs: models.ResNet(3, (1, 1), (4, 6), 2, rngs=rngs),
        IMAGES,
        "residual stream",
    ),
    "WideResNet": (lambda rngs: models.WideResNet(3, 10, 1, 2, rngs=rngs), IMAGES, "channel"),
    "encoder": (lambda rngs: models.Encoder(*SIZES, rngs=rngs), TOKENS, "head"),
    "decoder": (
        lambda rngs: models.CausalTransformer(*SIZES, tied=True, rngs=rngs),
        TOKENS,
        "residual stream",
    ),
    "Switch": (lambda rngs: models.SwitchTransformer(*SIZES, 4, rngs=rngs), TOKENS, "expert"),
    "LSTM": (
        lambda rngs: models.LSTMLanguageModel(7, 4, (6, 5), unroll=True, rngs=rngs),
        TOKENS,
        "neuron",
    ),
    "convolutions": (Convolutions, IMAGES, "channel"),
    "cross attention": (Decoder, TOKENS, "residual stream"),
    "unrolled cells": (Unrolled, SEQUENCES, "neuron"),
    "Linen MLP": (LinenMLP, VECTORS, "neuron"),
    "Linen convolutions": (LinenConvolutions, IMAGES, "residual stream"),
    "Linen encoder": (LinenEncoder, TOKENS, "head"),
    "Linen decoder": (LinenDecoder, TOKENS, "residual stream"),
    "Linen Switch": (LinenSwitch, VECTORS, "expert"),
    "Linen cells": (LinenUnrolled, SEQUENCES, "neuron"),
}
# Kinds and sizes of the groups that a block must have: a head's own neurons are fewer than 6.
BLOCK = {("head", 2), ("neuron", 6)}
PARTS = {
    "VGG": {("channel", 4), ("channel", 5), ("neuron", 6)},
    "ResNet": {("residual stream", 4), ("channel", 4), ("channel", 6)},
    "encoder": BLOCK,
    "decoder": BLOCK | {("residual stream", 4)},
    "Switch": BLOCK | {("residual stream", 4), ("expert", 4)},
}
BAKED = ("decoder", "cross attention", "Linen decoder", "Switch")


def taken_apart(build, inputs):
    """`apply(variables, inputs)` and random variables of a module, NNX or Linen."""
    if isinstance(build, type) and issubclass(build, linen.Module):
        variables = jax.eval_shape(build().init, jax.random.key(0), inputs)
        return build().apply, fill(variables, dtype="float32")
    parts = functional(shaped(build))
    return paired(parts), fill((parts.params, parts.state), dtype="float32")


@pytest.mark.parametrize("name", MODELS)
def test_masked_equals_shrunk(name):
    build, inputs, kind = MODELS[name]
    apply, variables = taken_apart(build, inputs)
    groups = find_nodes(apply, variables, inputs, mode="baked" if name in BAKED else "strict")
    found = {(groups[n].kind, size) for n, size in groups.prunable.items()}
    assert kind in {own for own, _ in found}
    assert found >= PARTS.get(name, set())
    keep = random_keep(groups)
    resized = resize(apply, groups, keep)

    @jax.jit
    def both(variables, small):
        return apply(mask(variables, groups, keep), inputs), resized(small, inputs)

    masked, shrunk = both(variables, shrink(variables, groups, keep))
    assert masked.dtype == jnp.float32
    assert np.isfinite(masked).all()
    np.testing.assert_allclose(shrunk, masked, atol=1e-5 * jnp.abs(masked).max(), rtol=0)
