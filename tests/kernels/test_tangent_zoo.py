# SPDX-License-Identifier: Apache-2.0
"""The package's own models, and Flax attention, against whole Jacobians in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from plprune.functional import functional
from plprune.kernels import tangent_kernel
from plprune.models import VGG, Encoder, LSTMLanguageModel, ResNet
from tests.problems import reference_kernel

pytestmark = pytest.mark.usefixtures("models_broadcast")

IMAGES = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
TOKENS = np.random.default_rng(1).integers(0, 5, (3, 3))


class TiedBlock(nnx.Module):
    """Attention, LayerNorm, GELU, and logits from the embedding."""

    def __init__(self, rngs):
        self.embed, self.norm = nnx.Embed(5, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(self.norm(x))
        x = x + self.down(nnx.gelu(self.up(x)))
        return self.embed.attend(x.mean(1))


class LinenBlock(linen.Module):
    """The same in Linen."""

    @linen.compact
    def __call__(self, tokens):
        embed = linen.Embed(5, 4)
        x = embed(tokens)
        x = x + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x))
        x = x + linen.Dense(4)(linen.gelu(linen.Dense(6)(x)))
        return embed.attend(x.mean(1))


def moved_statistics(tree):
    """Statistics and scales that are not the identity, so that leaving one out shows."""
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda a: (a + 0.3 * rng.random(a.shape)) if jnp.issubdtype(a.dtype, jnp.floating) else a,
        tree,
    )


def of_module(module):
    parts = functional(module)
    state = jax.tree.map(jnp.asarray, moved_statistics(parts.state))
    return lambda p, x: parts.apply(p, state, x), moved_statistics(parts.params)


def vgg():
    return *of_module(VGG(2, ((3,), (4,)), (5,), 2, rngs=nnx.Rngs(0))), IMAGES


def resnet():
    return *of_module(ResNet(2, (1, 1), (2, 3), 2, rngs=nnx.Rngs(0))), IMAGES


def encoder():
    apply, params = of_module(Encoder(5, 3, 4, 1, 2, 6, rngs=nnx.Rngs(0)))
    return lambda p, x: apply(p, x)[:, 0], params, TOKENS


def lstm():
    model = LSTMLanguageModel(5, 3, (3,), tied=True, unroll=True, rngs=nnx.Rngs(0))
    apply, params = of_module(model)
    return lambda p, x: apply(p, x)[:, -1], params, TOKENS


def tied_block():
    return *of_module(TiedBlock(nnx.Rngs(0))), TOKENS


def linen_block():
    module = LinenBlock()
    return module.apply, moved_statistics(module.init(jax.random.key(0), TOKENS)), TOKENS


@pytest.mark.parametrize("make", [vgg, resnet, encoder, lstm, tied_block, linen_block])
def test_equals_the_reference(make):
    apply, params, inputs = make()
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    inputs = jnp.asarray(inputs)
    kernel = jax.jit(lambda p, x: tangent_kernel(apply, p, x))(params, inputs)
    expected = reference_kernel(apply, params, inputs)
    # JAX's own attention, under that of NNX, takes its softmax in float32 whatever comes in.
    tolerance = 1e-7 if make is tied_block else 1e-12
    assert np.abs(kernel - expected).max() <= tolerance * np.abs(expected).max()


def test_batch_norm_in_training_mode_is_refused():
    graph, params, state = nnx.split(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.Param, ...)

    def apply(p, x):
        module = nnx.merge(graph, p, state, copy=True)
        module.set_attributes(use_running_average=False)
        return module(x)

    with pytest.raises(ValueError, match="apply must treat examples independently"):
        tangent_kernel(apply, params, jnp.ones((4, 3), jnp.float32))
