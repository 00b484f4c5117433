# SPDX-License-Identifier: Apache-2.0
"""The multilayer perceptron."""

import math
from collections.abc import Sequence

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from plprune.models.layers import Dense, activation_named, gain_of


class MLP(nnx.Module):
    """Fully connected layers `hidden_0`, `hidden_1`, ... and a linear `output`.

    Weights start normal with variance gain / fan_in, gain 2 before relu, gelu and silu [He 2015]
    and 1 before anything else and in `output` [LeCun 1998]; biases start at zero.

    Args:
      in_features: Size of one flattened input.
      hidden: Width of each hidden layer; empty for a linear model.
      out_features: Number of outputs c.
      activation: A name in `plprune.models.layers.ACTIVATIONS`.
      parameterization: "standard", or "ntk", which keeps the scale of the weights out of the
        parameters [Jacot 2018].
      use_bias: Whether the layers have biases.
      rngs: Draws the weights.

    Raises:
      ValueError: If a width is below 1, or the activation or parameterisation is unknown.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (256, 256),
        out_features: int = 10,
        *,
        activation: str = "relu",
        parameterization: str = "standard",
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.activation = activation_named(activation)
        self.depth = len(hidden)
        options = {"parameterization": parameterization, "use_bias": use_bias, "rngs": rngs}
        widths = (in_features, *hidden)
        for i, (fan_in, width) in enumerate(zip(widths, hidden, strict=False)):
            layer = Dense(fan_in, width, gain=gain_of(activation), **options)
            setattr(self, f"hidden_{i}", layer)
        self.output = Dense(widths[-1], out_features, **options)

    def __call__(self, inputs: Float[Array | np.ndarray, "b ..."]) -> Float[Array, "b c"]:
        """Outputs of flattened inputs."""
        x = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))  # Of no examples, too.
        for i in range(self.depth):
            x = self.activation(getattr(self, f"hidden_{i}")(x))
        return self.output(x)
