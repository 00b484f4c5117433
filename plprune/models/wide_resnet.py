# SPDX-License-Identifier: Apache-2.0
"""Wide residual networks [Zagoruyko 2016]."""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from plprune.models.layers import Chain, Dense, check_sizes, convolution, normalization


class WideBlock(nnx.Module):
    """BatchNorm, relu and convolution, twice, around a shortcut (1x1 where shapes differ)."""

    def __init__(
        self, in_features: int, features: int, *, stride: int, dropout: float, rngs: nnx.Rngs
    ):
        self.norm_0 = normalization(in_features, rngs)
        self.conv_0 = convolution(in_features, features, stride=stride, rngs=rngs)
        self.norm_1 = normalization(features, rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.conv_1 = convolution(features, features, rngs=rngs)
        projects = stride != 1 or in_features != features
        options = {"size": 1, "stride": stride, "gain": 1.0, "rngs": rngs}
        self.shortcut = convolution(in_features, features, **options) if projects else None

    def __call__(self, inputs: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """The sum of both paths; a projected shortcut starts after the first activation."""
        active = jax.nn.relu(self.norm_0(inputs))
        x = jax.nn.relu(self.norm_1(self.conv_0(active)))
        x = self.conv_1(x if self.dropout is None else self.dropout(x))
        return x + (inputs if self.shortcut is None else self.shortcut(active))


class WideResNet(nnx.Module):
    """WRN-depth-k: three stages of pre-activation blocks with 16 k, 32 k and 64 k channels.

    WRN-28-10 has 36,479,194 parameters and WRN-16-2 has 691,674, for 3 channels and 10 outputs.
    Weights start normal with variance 2 / fan_in (1 / fan_in in shortcuts and output).

    Args:
      in_channels: Channels of an image.
      depth: Number of layers, 6 n + 4 for n >= 1 blocks a stage.
      widening: Factor k of the widths.
      out_features: Number of outputs c.
      dropout: Probability of dropping an activation between the convolutions of a block.
      rngs: Draws the weights.

    Raises:
      ValueError: If the depth is not 6 n + 4, a size is below 1, or dropout is outside [0, 1).
    """

    def __init__(
        self,
        in_channels: int = 3,
        depth: int = 28,
        widening: int = 10,
        out_features: int = 10,
        *,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 10, 16, 22, ..., got {depth}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}.")
        check_sizes(widening=widening)
        self.stem, features = convolution(in_channels, 16, rngs=rngs), 16
        for i in range(3):
            width, chain = 16 * widening * 2**i, []
            for j in range((depth - 4) // 6):
                options = {"stride": 2 if i > 0 and j == 0 else 1, "dropout": dropout}
                chain.append(WideBlock(features, width, **options, rngs=rngs))
                features = width
            setattr(self, f"stage_{i}", Chain("block", chain))
        self.norm = normalization(features, rngs)
        self.output = Dense(features, out_features, rngs=rngs)

    def __call__(self, inputs: Float[Array | np.ndarray, "b h w i"]) -> Float[Array, "b c"]:
        """Outputs of images."""
        x = self.stem(inputs)
        for i in range(3):
            x = getattr(self, f"stage_{i}")(x)
        return self.output(jax.nn.relu(self.norm(x)).mean((1, 2)))
