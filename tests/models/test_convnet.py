# SPDX-License-Identifier: Apache-2.0
"""The plain convolutional network: sizes, modes and errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.functional import functional
from plprune.models import CNN
from plprune.models.layers import convolution

pytestmark = pytest.mark.usefixtures("models_broadcast")


def model(*sizes, **options):
    return functional(CNN(*sizes, **options, rngs=nnx.Rngs(0)))


def test_parts_have_readable_names_and_the_sizes_asked_for(fill):
    _, params, state = fill(lambda rngs: CNN((9, 8, 3), (4, 5), (6,), 2, rngs=rngs))
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes["conv_0"] == {"kernel": (3, 3, 3, 4)}
    assert shapes["norm_1"] == {"scale": (5,), "bias": (5,)}
    assert shapes["hidden_0"]["kernel"] == (2 * 2 * 5, 6)
    assert shapes["output"] == {"kernel": (6, 2), "bias": (2,)}
    assert set(state) == {"norm_0", "norm_1"}


def test_without_batch_norm_there_is_no_state(fill):
    options = {"batch_norm": False, "head": "mean"}
    _, params, state = fill(lambda rngs: CNN((8, 8, 1), (4,), **options, rngs=rngs))
    assert state == {}
    assert params["conv_0"]["bias"].shape == (4,)
    assert params["output"]["kernel"].shape == (4, 10)


@pytest.mark.parametrize("options", [{}, {"head": "mean", "pooling": "average"}])
def test_examples_are_independent_in_evaluation_mode(key, options, fill):
    net, params, state = fill(lambda rngs: CNN((8, 8, 2), (3, 4), (), 5, **options, rngs=rngs))
    images = jax.random.normal(key, (4, 8, 8, 2), jnp.float32)
    apply = jax.jit(net.apply)
    whole = apply(params, state, images)
    assert whole.shape == (4, 5)
    changed = apply(params, state, images * np.float32([1, -3, -3, -3])[:, None, None, None])
    chex.assert_trees_all_close(whole[0], changed[0], rtol=1e-5)


def test_one_stage_equals_a_direct_sum(key, fill):
    options = {"batch_norm": False, "pooling": "average", "activation": "identity"}
    net, params, _ = fill(lambda rngs: CNN((2, 2, 1), (1,), (), 1, **options, rngs=rngs))
    image = jax.random.normal(key, (1, 2, 2, 1), jnp.float32)
    padded = np.pad(np.asarray(image)[0, :, :, 0], 1)
    kernel = params["conv_0"]["kernel"][:, :, 0, 0]
    sums = [(padded[i : i + 3, j : j + 3] * kernel).sum() for i in range(2) for j in range(2)]
    hidden = np.mean(sums) + params["conv_0"]["bias"]
    expected = hidden * params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(jax.jit(net.apply)(params, {}, image), expected, rtol=1e-5)


def test_convolutions_start_with_he_variance():
    conv = convolution(16, 256, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.var(np.asarray(conv.kernel[...])), 2 / (9 * 16), rtol=0.03)


def test_training_moves_the_statistics(key, fill):
    net, params, before = fill(lambda rngs: CNN((8, 8, 1), (2,), rngs=rngs))
    images = jax.random.normal(key, (4, 8, 8, 1), jnp.float32)
    _, after = jax.jit(net.train)(params, before, images, key=key)
    assert not jnp.allclose(after["norm_0"]["mean"], before["norm_0"]["mean"])


def test_rejects_bad_arguments():
    with pytest.raises(ValueError, match="at most 3 stages for images of 8 x 9, got 4"):
        model((8, 9, 1), (1, 1, 1, 1))
    with pytest.raises(ValueError, match="head must be one of flatten, mean; got 'max'"):
        model((8, 8, 1), head="max")
    with pytest.raises(ValueError, match="pooling must be one of max, average; got 'sum'"):
        model((8, 8, 1), pooling="sum")
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        model((8, 8, 1), (0,))
