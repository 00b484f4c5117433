# SPDX-License-Identifier: Apache-2.0
"""Deep perceptrons with normalisation or skip connections, whose hidden units can be pruned."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from plprune.models.layers import Dense, activation_named, gain_of, normalization, one_of

DESIGNS = ("batchnorm", "centred", "residual", "layernorm")
_MOMENTUM = 0.9  # As of BatchNorm here.
_PARTS = ("hidden", "norm", "down")


class DeepMLP(nnx.Module):
    """A perceptron of `hidden` layers in one of four ways; each loses units as a plain one does.

    "batchnorm" normalises what each hidden layer adds up. "centred" subtracts the batch's mean from
    the outputs, less their bias [Karakida 2019]. "residual" adds each hidden layer to a stream of
    `stream` features, ``x + down(act(up(x)))``, whose features stay; "layernorm" normalises what
    each such layer reads. Weights start as in `plprune.models.MLP`, those into the stream divided
    by the square root of the depth.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        design: str,
        activation: str = "tanh",
        stream: int = 64,
        rngs: nnx.Rngs,
    ):
        self.design = one_of("design", design, DESIGNS)
        self.activation, self.depth = activation_named(activation), len(hidden)
        self.streams = design in ("residual", "layernorm")
        fan_in, gain = in_features, gain_of(activation)
        if self.streams:
            self.stem = Dense(in_features, stream, rngs=rngs)
            fan_in = stream
        for i, width in enumerate(hidden):
            setattr(self, f"hidden_{i:02}", Dense(fan_in, width, gain=gain, rngs=rngs))
            if design == "batchnorm":
                setattr(self, f"norm_{i:02}", normalization(width, rngs))
            if design == "layernorm":
                setattr(self, f"norm_{i:02}", nnx.LayerNorm(stream, rngs=rngs))
            if self.streams:
                down = Dense(width, stream, gain=1 / self.depth, rngs=rngs)
                setattr(self, f"down_{i:02}", down)
            else:
                fan_in = width
        self.output = Dense(fan_in, out_features, rngs=rngs)
        if design == "centred":
            self.centre = Centre(out_features)

    def __call__(self, inputs):
        """Outputs of flattened inputs."""
        x = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))
        x = self.stem(x) if self.streams else x
        for i in range(self.depth):
            x = self._layer(x, *(getattr(self, f"{n}_{i:02}", None) for n in _PARTS))
        outputs = self.output(x)
        return self.centre(outputs) if self.design == "centred" else outputs

    def _layer(self, x, layer, norm, down):
        if self.design == "layernorm":
            return x + down(self.activation(layer(norm(x))))
        if self.design == "residual":
            return x + down(self.activation(layer(x)))
        added = layer(x)
        return self.activation(added if norm is None else norm(added))


class Centre(nnx.Module):
    """Outputs less their mean over the batch; in evaluation mode less a running one."""

    def __init__(self, features: int):
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.use_running_average = False

    def __call__(self, outputs):
        """Centred outputs plus a bias of their own."""
        mean = self.mean[...]
        if not self.use_running_average:
            mean = outputs.mean(0)
            self.mean[...] = _MOMENTUM * self.mean[...] + (1 - _MOMENTUM) * mean
        return outputs - mean[None] + self.bias[...][None]
