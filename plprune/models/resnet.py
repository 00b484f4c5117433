# SPDX-License-Identifier: Apache-2.0
"""Residual networks of basic blocks: [He 2016], and the nine-layer one of [Page 2018]."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from plprune.models.layers import Chain, Dense, check_sizes, convolution, normalization, one_of

STEMS = ("small", "imagenet")


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions around a shortcut, projected by a 1x1 convolution if shapes differ."""

    def __init__(self, in_features: int, features: int, *, stride: int = 1, rngs: nnx.Rngs):
        self.conv_0 = convolution(in_features, features, stride=stride, rngs=rngs)
        self.norm_0 = normalization(features, rngs)
        self.conv_1 = convolution(features, features, rngs=rngs)
        self.norm_1 = normalization(features, rngs)
        projects = stride != 1 or in_features != features
        options = {"size": 1, "stride": stride, "gain": 1.0, "rngs": rngs}
        self.shortcut = convolution(in_features, features, **options) if projects else None
        self.shortcut_norm = normalization(features, rngs) if projects else None

    def __call__(self, inputs: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Relu of the sum of both paths."""
        x = jax.nn.relu(self.norm_0(self.conv_0(inputs)))
        x = self.norm_1(self.conv_1(x))
        if self.shortcut is None or self.shortcut_norm is None:
            return jax.nn.relu(x + inputs)
        return jax.nn.relu(x + self.shortcut_norm(self.shortcut(inputs)))


class ResNet(nnx.Module):
    """Stages of basic blocks, each but the first halving height and width; mean; linear `output`.

    Shortcuts that change shape are 1x1 convolutions with BatchNorm: option B of [He 2016]. With
    widths (16, 32, 64) and blocks (3, 3, 3) this is the ResNet-20 for CIFAR-10 of 272,474
    parameters. Weights start normal with variance 2 / fan_in (1 / fan_in in shortcuts and output).

    Args:
      in_channels: Channels of an image.
      blocks: Number of blocks of each stage.
      widths: Channels of each stage.
      out_features: Number of outputs c.
      stem: "small", a 3x3 convolution, or "imagenet", a 7x7 one of stride 2 and a max pooling.
      rngs: Draws the weights.

    Raises:
      ValueError: If blocks and widths differ in length, a size is below 1, or the stem is unknown.
    """

    def __init__(
        self,
        in_channels: int = 3,
        blocks: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        out_features: int = 10,
        *,
        stem: str = "small",
        rngs: nnx.Rngs,
    ):
        self.stem_kind = one_of("stem", stem, STEMS)
        check_stages(blocks, widths)
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.stem = convolution(in_channels, widths[0], size=size, stride=stride, rngs=rngs)
        self.stem_norm = normalization(widths[0], rngs)
        self.depth, features = len(blocks), widths[0]
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            chain = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                chain.append(BasicBlock(features, width, stride=stride, rngs=rngs))
                features = width
            setattr(self, f"stage_{i}", Chain("block", chain))
        self.output = Dense(features, out_features, rngs=rngs)

    def __call__(self, inputs: Float[Array | np.ndarray, "b h w i"]) -> Float[Array, "b c"]:
        """Outputs of images."""
        x = jax.nn.relu(self.stem_norm(self.stem(inputs)))
        if self.stem_kind == "imagenet":
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i in range(self.depth):
            x = getattr(self, f"stage_{i}")(x)
        return self.output(x.mean((1, 2)))


class ResNet9(nnx.Module):
    """Convolutions with pooling, residual pairs after the second and fourth; 6,573,130 parameters.

    After [Page 2018], without its fixed scaling of the outputs.

    Args:
      in_channels: Channels of an image, which must be at least 8 x 8.
      widths: Channels of the four convolutions.
      out_features: Number of outputs c.
      rngs: Draws the weights.

    Raises:
      ValueError: If there are not four widths, or a size is below 1.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        out_features: int = 10,
        *,
        rngs: nnx.Rngs,
    ):
        if len(widths) != 4:
            raise ValueError(f"widths must have 4 entries, got {len(widths)}.")
        check_sizes(widths=min(widths))
        sizes = (in_channels, *widths)
        for i in range(4):
            setattr(self, f"part_{i}", ConvNormRelu(sizes[i], sizes[i + 1], rngs=rngs))
        for i in (1, 3):
            pair = [ConvNormRelu(widths[i], widths[i], rngs=rngs) for _ in range(2)]
            setattr(self, f"residual_{i}", Chain("part", pair))
        self.output = Dense(widths[3], out_features, rngs=rngs)

    def __call__(self, inputs: Float[Array | np.ndarray, "b h w i"]) -> Float[Array, "b c"]:
        """Outputs of images."""
        x = getattr(self, "part_0")(inputs)  # noqa: B009
        for i in range(1, 4):
            x = getattr(self, f"part_{i}")(x)
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
            if i != 2:
                x = x + getattr(self, f"residual_{i}")(x)
        return self.output(x.max((1, 2)))


class ConvNormRelu(nnx.Module):
    """3x3 convolution, BatchNorm, relu."""

    def __init__(self, in_features: int, features: int, *, use_bias: bool = False, rngs: nnx.Rngs):
        self.conv = convolution(in_features, features, use_bias=use_bias, rngs=rngs)
        self.norm = normalization(features, rngs)

    def __call__(self, inputs: Float[Array | np.ndarray, "b h w i"]) -> Float[Array, "b h w o"]:
        """Images of the same height and width."""
        return jax.nn.relu(self.norm(self.conv(inputs)))


def check_stages(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Raise ValueError unless both have one entry, at least 1, for each stage."""
    if len(blocks) != len(widths) or not len(blocks):
        raise ValueError(f"widths must have {len(blocks)} entries like blocks, got {len(widths)}.")
    check_sizes(blocks=min(blocks), widths=min(widths))
