# SPDX-License-Identifier: Apache-2.0
"""Activations, and a dense layer in the standard or the tangent-kernel parameterisation."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer

from plprune.compilation import is_concrete

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}
HALVING = ("relu", "gelu", "silu")  # They pass about half of the second moment of their input.
PARAMETERIZATIONS = ("standard", "ntk")
BLOCK, MAX_BLOCKS = 1 << 14, 16


def activation_named(name: str) -> Activation:
    """The elementwise function of this name.

    Raises:
      ValueError: If the name is not in `ACTIVATIONS`.
    """
    return ACTIVATIONS[one_of("activation", name, tuple(ACTIVATIONS))]


def gain_of(name: str) -> float:
    """Variance gain of the weights before this activation: He's 2 or LeCun's 1.

    Source: [He 2015] for the rectifiers, [LeCun 1998] for the others.
    """
    return 2.0 if name in HALVING else 1.0


def normal(deviation: float) -> nnx.Initializer:
    """Initialiser of normal weights with mean zero and this standard deviation."""

    def init(key, shape, dtype=jnp.float32, *_, **__):
        drawn = _standard_normal(key, shape)
        if isinstance(drawn, np.ndarray):
            return jnp.asarray(np.float32(deviation) * drawn, dtype)
        return (deviation * drawn).astype(dtype)

    return init


def fan_in_normal(gain: float) -> nnx.Initializer:
    """Initialiser of normal weights with variance gain / fan_in; the last axis is the output."""

    def init(key, shape, dtype=jnp.float32, *_, **__):
        return normal((gain / math.prod(shape[:-1])) ** 0.5)(key, shape, dtype)

    return init


def _standard_normal(key, shape):
    # One compiled program serves all small shapes: compiling a draw takes XLA about a second on a
    # CPU, and a residual network has ten different shapes.
    size = math.prod(shape)
    if size > MAX_BLOCKS * BLOCK:
        return jax.random.normal(key, shape, jnp.float32)
    blocks = [_normal_block(key, i) for i in range(-(-size // BLOCK))]
    # Cut on the host where it can be: there nothing is compiled for the shape either.
    numpy = np if all(map(is_concrete, blocks)) else jnp
    return numpy.concatenate(blocks)[:size].reshape(shape)


@jax.jit
def _normal_block(key, i):
    return jax.random.normal(jax.random.fold_in(key, i), (BLOCK,), jnp.float32)


def with_bias(outputs: Float[Array, "... o"], bias: Float[Array, "... o"]) -> Float[Array, "... o"]:
    """Outputs plus a bias of their last axes; where ranks may not be promoted, too."""
    return outputs + jnp.expand_dims(bias, tuple(range(outputs.ndim - bias.ndim)))


class Dense(nnx.Module):
    """x -> scale * x @ kernel + bias, whose output variance at the start is the same either way.

    "standard" draws the kernel with variance gain / fan_in and has scale 1; "ntk" draws it with
    variance 1 and has scale sqrt(gain / fan_in) [Jacot 2018]. Biases start at zero, unscaled.

    Raises:
      ValueError: If a size is below 1 or the parameterisation is unknown.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        gain: float = 1.0,
        parameterization: str = "standard",
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        one_of("parameterization", parameterization, PARAMETERIZATIONS)
        check_sizes(in_features=in_features, out_features=out_features)
        deviation = (gain / in_features) ** 0.5
        self.scale = deviation if parameterization == "ntk" else 1.0
        init = normal(deviation / self.scale)
        self.kernel = nnx.Param(init(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32)) if use_bias else None

    def __call__(self, inputs: Float[Array | np.ndarray, "b ... i"]) -> Float[Array, "b ... o"]:
        """The affine map of the last axis."""
        outputs = jnp.matmul(inputs, self.kernel[...])
        outputs = outputs if self.scale == 1.0 else self.scale * outputs
        return outputs if self.bias is None else with_bias(outputs, self.bias[...])


class Embed(nnx.Module):
    """A vector for each token; computes in the type of its parameters, whatever that becomes."""

    def __init__(self, num_tokens: int, features: int, *, deviation: float, rngs: nnx.Rngs):
        check_sizes(num_tokens=num_tokens, features=features)
        self.embedding = nnx.Param(normal(deviation)(rngs.params(), (num_tokens, features)))

    def __call__(self, tokens: Integer[Array, "..."]) -> Float[Array, "... d"]:
        """Vectors of tokens; NaN for a token outside [0, num_tokens)."""
        return jnp.take(self.embedding[...], tokens, axis=0, mode="fill", fill_value=jnp.nan)

    def attend(self, inputs: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Products with every token's vector."""
        return inputs @ self.embedding[...].T


def convolution(
    in_features: int,
    out_features: int,
    *,
    size: int = 3,
    stride: int = 1,
    gain: float = 2.0,
    use_bias: bool = False,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution padded by size // 2 on every side.

    Weights start normal with variance gain / fan_in, biases at zero.
    """
    return nnx.Conv(
        in_features,
        out_features,
        (size, size),
        strides=stride,
        padding=((size // 2, size // 2),) * 2,
        use_bias=use_bias,
        kernel_init=fan_in_normal(gain),
        rngs=rngs,
    )


def normalization(features: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """BatchNorm whose running statistics move by a tenth each training step."""
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Chain(nnx.Module):
    """Modules applied one after the other, named `name_0`, `name_1`, ..."""

    def __init__(self, name: str, modules: Sequence[nnx.Module]):
        self.names = tuple(f"{name}_{i}" for i in range(len(modules)))
        for attribute, module in zip(self.names, modules, strict=True):
            setattr(self, attribute, module)

    def __call__(self, inputs: Array, *args: Array | None) -> Array:
        """The last module's output; further arguments go to every module."""
        x = inputs
        for name in self.names:
            x = getattr(self, name)(x, *args)
        return x


def check_sizes(**sizes: int) -> None:
    """Raise ValueError, by name, for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def one_of(argument: str, value: str, allowed: Sequence[str]) -> str:
    """`value`, or a ValueError that lists what the argument allows."""
    if value not in allowed:
        raise ValueError(f"{argument} must be one of {', '.join(allowed)}; got {value!r}.")
    return value
