# SPDX-License-Identifier: Apache-2.0
"""Residual and VGG networks: published sizes, and examples that do not interact."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.models import VGG, ResNet, ResNet9, WideResNet
from plprune.models.vgg import VGG11
from plprune.models.wide_resnet import WideBlock

pytestmark = pytest.mark.usefixtures("models_broadcast")

# From the papers' reference implementations; see the docstrings for what is counted.
PUBLISHED = {
    "resnet20": (272_474, lambda rngs: ResNet(rngs=rngs)),
    "resnet18": (
        11_173_962,
        lambda rngs: ResNet(3, (2, 2, 2, 2), (64, 128, 256, 512), rngs=rngs),
    ),
    "resnet18-imagenet": (
        11_689_512,
        lambda rngs: ResNet(3, (2, 2, 2, 2), (64, 128, 256, 512), 1000, stem="imagenet", rngs=rngs),
    ),
    "resnet34-imagenet": (
        21_797_672,
        lambda rngs: ResNet(3, (3, 4, 6, 3), (64, 128, 256, 512), 1000, stem="imagenet", rngs=rngs),
    ),
    "resnet9": (6_573_130, lambda rngs: ResNet9(rngs=rngs)),
    "wrn-28-10": (36_479_194, lambda rngs: WideResNet(rngs=rngs)),
    "wrn-16-2": (691_674, lambda rngs: WideResNet(3, 16, 2, rngs=rngs)),
    "vgg16": (14_728_266, lambda rngs: VGG(conv_bias=True, rngs=rngs)),
    "vgg11": (9_231_114, lambda rngs: VGG(3, VGG11, conv_bias=True, rngs=rngs)),
}

SMALL = {
    "resnet": lambda rngs: ResNet(2, (1, 1), (3, 4), 5, rngs=rngs),
    "resnet-imagenet": lambda rngs: ResNet(2, (1,), (3,), 5, stem="imagenet", rngs=rngs),
    "resnet9": lambda rngs: ResNet9(2, (2, 3, 4, 5), 5, rngs=rngs),
    "wide": lambda rngs: WideResNet(2, 10, 1, 5, dropout=0.2, rngs=rngs),
    "vgg": lambda rngs: VGG(2, ((3,), (4, 4)), (6,), 5, rngs=rngs),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, count_of):
    expected, build = PUBLISHED[name]
    assert count_of(build) == expected


@pytest.mark.parametrize("name", SMALL)
def test_examples_are_independent_in_evaluation_mode(key, name, fill):
    net, params, state = fill(SMALL[name])
    images = jax.random.normal(key, (2, 8, 8, 2), jnp.float32)
    apply = jax.jit(net.apply)
    whole = apply(params, state, images)
    assert whole.shape == (2, 5)
    assert jnp.isfinite(whole).all()
    chex.assert_trees_all_close(whole[0], apply(params, state, images.at[1].mul(-3))[0], rtol=1e-5)
    assert not jnp.allclose(whole[0], apply(params, state, images.at[0].mul(-3))[0])


def test_training_updates_every_statistic(key, fill):
    block = {"stride": 2, "dropout": 0.2}
    net, params, state = fill(lambda rngs: WideBlock(2, 3, **block, rngs=rngs))
    images = jax.random.normal(key, (2, 4, 4, 2), jnp.float32)
    outputs, after = jax.jit(net.train)(params, state, images, key=key)
    assert outputs.shape == (2, 2, 2, 3)
    chex.assert_trees_all_equal_structs(after, state)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state, after)
    assert all(jax.tree.leaves(moved))


def test_parts_have_readable_names(shapes_of):
    names = shapes_of(SMALL["resnet"])
    assert names["stage_1"]["block_0"]["conv_0"]["kernel"] == (3, 3, 3, 4)
    assert names["stage_1"]["block_0"]["shortcut"] == {"kernel": (1, 1, 3, 4)}
    assert "shortcut" not in names["stage_0"]["block_0"]
    assert shapes_of(SMALL["vgg"])["stage_1"]["part_1"]["conv"]["kernel"] == (3, 3, 4, 4)


def test_identity_block_adds_its_input(fill):
    net, params, state = fill(SMALL["resnet-imagenet"])
    block = jax.tree.map(jnp.zeros_like, params["stage_0"]["block_0"])
    silent = {**params, "stage_0": {"block_0": block}}
    state["stage_0"]["block_0"] = jax.tree.map(jnp.zeros_like, state["stage_0"]["block_0"])
    impulse = jnp.ones((1, 8, 8, 2), jnp.float32)
    outputs = jax.jit(net.apply)(silent, state, impulse)
    stem = jax.lax.conv_general_dilated(
        impulse, params["stem"]["kernel"], (2, 2), ((3, 3), (3, 3)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    norm, moments = params["stem_norm"], state["stem_norm"]
    x = (stem - moments["mean"]) / jnp.sqrt(moments["var"] + 1e-5) * norm["scale"] + norm["bias"]
    x = np.pad(np.maximum(x, 0), ((0, 0), (1, 1), (1, 1), (0, 0)))
    pooled = np.array([[x[0, i : i + 3, j : j + 3].max((0, 1)) for j in (0, 2)] for i in (0, 2)])
    expected = pooled.mean((0, 1)) @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-4)


def test_rejects_bad_arguments():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="widths must have 2 entries like blocks, got 1"):
        ResNet(3, (1, 1), (4,), rngs=rngs)
    with pytest.raises(ValueError, match="blocks must be at least 1, got 0"):
        ResNet(3, (0,), (4,), rngs=rngs)
    with pytest.raises(ValueError, match="stem must be one of small, imagenet; got 'big'"):
        ResNet(stem="big", rngs=rngs)
    with pytest.raises(ValueError, match="widths must have 4 entries, got 1"):
        ResNet9(3, (4,), rngs=rngs)
    with pytest.raises(ValueError, match=r"depth must be 10, 16, 22, \.\.\., got 20"):
        WideResNet(depth=20, rngs=rngs)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.0"):
        WideResNet(3, 10, 1, dropout=1.0, rngs=rngs)
    with pytest.raises(ValueError, match="stages must be at least 1, got 0"):
        VGG(3, ((0,),), rngs=rngs)
