# SPDX-License-Identifier: Apache-2.0
"""A plain convolutional network."""

import math
from collections.abc import Sequence

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from plprune.models.layers import (
    Dense,
    activation_named,
    check_sizes,
    convolution,
    gain_of,
    normalization,
    one_of,
)

HEADS = ("flatten", "mean")
POOLINGS = {"max": nnx.max_pool, "average": nnx.avg_pool}


class CNN(nnx.Module):
    """Stages of 3x3 convolution, BatchNorm, activation and 2x2 pooling, then a linear `output`.

    The stages' parts are named `conv_0`, `norm_0`, `conv_1`, ...; dense layers between them and
    the output are `hidden_0`, ... Weights start normal with variance gain / fan_in, gain 2 before
    relu, gelu and silu [He 2015], else 1 [LeCun 1998]. A convolution has a bias only without
    BatchNorm, whose own would make it redundant.

    Args:
      in_shape: Height, width and channels of one image.
      channels: Output channels of each stage; every stage halves height and width, rounding down.
      hidden: Widths of dense layers before the output.
      out_features: Number of outputs c.
      head: "flatten" feeds every position to the dense layers, "mean" their average.
      batch_norm: Whether to normalise after each convolution.
      pooling: "max" or "average".
      activation: A name in `plprune.models.layers.ACTIVATIONS`.
      rngs: Draws the weights.

    Raises:
      ValueError: If a size is below 1, an image is too small for the stages, or a name unknown.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (),
        out_features: int = 10,
        *,
        head: str = "flatten",
        batch_norm: bool = True,
        pooling: str = "max",
        activation: str = "relu",
        rngs: nnx.Rngs,
    ):
        self.activation, gain = activation_named(activation), gain_of(activation)
        self.head = one_of("head", head, HEADS)
        self.pool = POOLINGS[one_of("pooling", pooling, tuple(POOLINGS))]
        self.stages, self.depth = len(channels), len(hidden)
        height, width, features = in_shape
        _check_stages(height, width, self.stages)
        for i, size in enumerate(channels):
            check_sizes(channels=size)
            conv = convolution(features, size, gain=gain, use_bias=not batch_norm, rngs=rngs)
            setattr(self, f"conv_{i}", conv)
            setattr(self, f"norm_{i}", normalization(size, rngs) if batch_norm else None)
            features = size
        if head == "flatten":
            features *= (height >> self.stages) * (width >> self.stages)
        for i, size in enumerate(hidden):
            setattr(self, f"hidden_{i}", Dense(features, size, gain=gain, rngs=rngs))
            features = size
        self.output = Dense(features, out_features, rngs=rngs)

    def __call__(self, inputs: Float[Array | np.ndarray, "b h w i"]) -> Float[Array, "b c"]:
        """Outputs of images."""
        x = inputs
        for i in range(self.stages):
            x, norm = getattr(self, f"conv_{i}")(x), getattr(self, f"norm_{i}")
            x = self.activation(x if norm is None else norm(x))
            x = self.pool(x, (2, 2), strides=(2, 2))
        x = x.mean((1, 2)) if self.head == "mean" else x.reshape(len(x), math.prod(x.shape[1:]))
        for i in range(self.depth):
            x = self.activation(getattr(self, f"hidden_{i}")(x))
        return self.output(x)


def _check_stages(height, width, stages):
    if min(height, width) >> stages < 1:
        raise ValueError(
            f"channels must have at most {min(height, width).bit_length() - 1} stages for images "
            f"of {height} x {width}, got {stages}."
        )
