# SPDX-License-Identifier: Apache-2.0
"""Every preset can be built, and the paper's size is the larger one."""

import pytest
from flax import nnx

from plprune.models import PRESETS, build
from plprune.models.resnet import ResNet


@pytest.mark.parametrize("name", PRESETS)
def test_cpu_size_is_below_two_million_parameters(name, count_of):
    assert set(PRESETS[name]) == {"cpu", "paper"}
    assert 0 < count_of(lambda rngs: build(name, "cpu", rngs=rngs)) < 2_000_000


@pytest.mark.parametrize(
    ("name", "published"), [("resnet20", 272_474), ("resnet18", 11_173_962), ("resnet9", 6_573_130)]
)
def test_paper_size_is_the_published_one(name, published, count_of):
    assert count_of(lambda rngs: build(name, "paper", rngs=rngs)) == published


def test_sizes_can_be_changed(count_of):
    ten, hundred = (
        count_of(lambda rngs, c=c: build("resnet20", "cpu", out_features=c, rngs=rngs))
        for c in (10, 100)
    )
    assert hundred - ten == 90 * (32 + 1)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"name must be one of resnet9, .*; got 'resnet'"):
        build("resnet", "cpu", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="size must be one of cpu, paper; got 'gpu'"):
        build("vgg16", "gpu", rngs=nnx.Rngs(0))
    assert PRESETS["resnet20"]["cpu"].model is ResNet
