# SPDX-License-Identifier: Apache-2.0
"""VGG networks with BatchNorm [Simonyan 2015], [Ioffe 2015]."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from plprune.models.layers import Chain, Dense, check_sizes
from plprune.models.resnet import ConvNormRelu

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nnx.Module):
    """Stages of 3x3 convolutions with BatchNorm and relu, 2x2 max pooling; dense layers; `output`.

    The mean over the positions left goes to the dense layers. With biases in the convolutions
    and no hidden layer, VGG-16 for CIFAR-10 has 14,728,266 parameters; the biases
    (4,224 of them) are left out by default because BatchNorm cancels them. Weights start normal
    with variance 2 / fan_in (1 / fan_in in the output).

    Args:
      in_channels: Channels of an image, which must be at least 2^stages on each side.
      stages: Channels of each convolution of each stage, such as `VGG16`.
      hidden: Widths of dense layers before the output.
      out_features: Number of outputs c.
      conv_bias: Whether convolutions have biases.
      rngs: Draws the weights.

    Raises:
      ValueError: If a size is below 1.
    """

    def __init__(
        self,
        in_channels: int = 3,
        stages: Sequence[Sequence[int]] = VGG16,
        hidden: Sequence[int] = (),
        out_features: int = 10,
        *,
        conv_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        features, self.depth, self.stages = in_channels, len(hidden), len(stages)
        for i, widths in enumerate(stages):
            check_sizes(stages=min(widths))
            sizes = zip((features, *widths), widths, strict=False)
            chain = [ConvNormRelu(*pair, use_bias=conv_bias, rngs=rngs) for pair in sizes]
            setattr(self, f"stage_{i}", Chain("part", chain))
            features = widths[-1]
        for i, width in enumerate(hidden):
            setattr(self, f"hidden_{i}", Dense(features, width, gain=2.0, rngs=rngs))
            features = width
        self.output = Dense(features, out_features, rngs=rngs)

    def __call__(self, inputs: Float[Array | np.ndarray, "b h w i"]) -> Float[Array, "b c"]:
        """Outputs of images."""
        x = inputs
        for i in range(self.stages):
            x = nnx.max_pool(getattr(self, f"stage_{i}")(x), (2, 2), strides=(2, 2))
        x = x.mean((1, 2))
        for i in range(self.depth):
            x = jax.nn.relu(getattr(self, f"hidden_{i}")(x))
        return self.output(x)
