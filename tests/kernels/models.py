# SPDX-License-Identifier: Apache-2.0
"""Small models of every kind: name -> (apply, params, inputs), all in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MODELS = {}


def model(make):
    MODELS[make.__name__] = make
    return make


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s) / np.sqrt(max(s[:-1] or (1,)))) for s in shapes]


def images(*shape):
    return jnp.asarray(np.random.default_rng(9).normal(size=shape))


def conv(x, w, **options):
    options = {"window_strides": (1,) * (x.ndim - 2), "padding": "SAME"} | options
    numbers = ("NHWC", "HWIO", "NHWC") if x.ndim == 4 else ("NHC", "HIO", "NHC")
    return lax.conv_general_dilated(x, w, dimension_numbers=numbers, **options)


@model
def mlp():
    w, b, v, c = arrays((4, 6), (6,), (6, 3), (3,))
    return lambda p, x: jnp.tanh(x @ p[0] + p[1]) @ p[2] + p[3], [w, b, v, c], images(3, 4)


@model
def convolutions():
    """Stride, dilation, groups, asymmetric padding, biases; the last layer sees few positions."""
    p = arrays((3, 3, 2, 4), (4,), (3, 3, 2, 4), (2, 2, 4, 6), (6,), (6, 3))

    def apply(p, x):
        x = jnp.tanh(conv(x, p[0], window_strides=(2, 2)) + p[1])
        x = jnp.tanh(conv(x, p[2], rhs_dilation=(2, 2), feature_group_count=2))
        x = jnp.tanh(conv(x, p[3], padding=((1, 0), (0, 2)), window_strides=(2, 2)) + p[4])
        return jnp.mean(x, axis=(1, 2)) @ p[5]

    return apply, p, images(3, 8, 8, 2)


@model
def upsampling_in_one_dimension():
    """A transposed convolution is one with a dilated input."""
    p = arrays((3, 2, 4), (9, 4, 2))

    def apply(p, x):
        x = jnp.tanh(conv(x, p[0], padding=((2, 2),), lhs_dilation=(2,)))
        return conv(x, p[1], padding="VALID")

    return apply, p, images(3, 6, 2)


@model
def normalised_residuals():
    """BatchNorm with fixed statistics, LayerNorm, residual connections."""
    p = arrays((3, 3, 2, 4), (4,), (4,), (3, 3, 4, 4), (4,), (4,), (4, 3))

    def apply(p, x):
        x = conv(x, p[0]) * p[1] + p[2]
        mean = jnp.mean(x, axis=-1, keepdims=True)
        x = x + (conv(jax.nn.relu(x - mean), p[3]) - 0.1) / 1.3 * p[4] + p[5]
        return jnp.mean(x, axis=(1, 2)) @ p[6]

    return apply, p, images(3, 5, 5, 2)


@model
def attention():
    """Heads by einsum, a tied embedding, integer inputs."""
    p = arrays((7, 4), (3, 4, 2, 2), (3, 2, 2), (2, 2, 4), (4,), (4, 6), (6,), (6, 4))

    def apply(p, tokens):
        x = p[0][tokens]
        q, k, v = jnp.einsum("bsd,ndhk->nbshk", x, p[1]) + p[2][:, None, None]
        weights = jax.nn.softmax(jnp.einsum("bshk,bthk->bhst", q, k))
        x = x + jnp.einsum("bhst,bthk,hkd->bsd", weights, v, p[3]) * p[4]
        x = x + jax.nn.gelu(x @ p[5] + p[6]) @ p[7]
        return jnp.einsum("bsd,vd->bv", x, p[0])

    return apply, p, jnp.asarray(np.random.default_rng(2).integers(0, 7, (3, 5)))


@model
def embedding():
    """A long table, few tokens."""
    p = arrays((400, 3), (3, 2))
    tokens = np.random.default_rng(2).integers(-3, 400, (4, 3))
    return lambda p, x: jnp.mean(p[0][x], axis=1) @ p[1], p, jnp.asarray(tokens)


@model
def unrolled_recurrence():
    """One cell used at every step, as in a recurrent net."""
    p = arrays((2, 3), (3, 3), (3,), (3, 2))

    def apply(p, x):
        h = jnp.zeros((len(x), 3), x.dtype)
        for t in range(4):
            h = jnp.tanh(x[:, t] @ p[0] + h @ p[1] + p[2])
        return h @ p[3]

    return apply, p, images(3, 4, 2)


@model
def shared_weights():
    """One matrix used plainly, transposed, scaled and in a product with itself."""
    p = arrays((4, 4), (4,))

    def apply(p, x):
        x = jnp.tanh(x @ p[0] + p[1])
        x = jnp.tanh(p[0].T @ x[..., None])[..., 0] + p[1]
        return x @ (p[0] * 0.5) @ (p[0] @ p[0].T)

    return apply, p, images(3, 4)


@model
def shared_layer():
    """The same dense layer, with its bias, twice."""
    p = arrays((4, 4), (4,))
    return lambda p, x: jnp.tanh(x @ p[0] + p[1]) @ p[0] + p[1], p, images(3, 4)


@model
def scanned_layers():
    p = arrays((3, 4, 4), (3, 4))

    def apply(p, x):
        return lax.scan(lambda h, layer: (jnp.tanh(h @ layer[0] + layer[1]), None), x, p)[0]

    return apply, p, images(3, 4)


@model
def branches():
    p = arrays((4, 4), (4, 2))

    def apply(p, x):
        def one(x):
            return lax.cond(x[0] > 0, lambda x: x @ p[0], lambda x: jnp.sin(x @ p[0]), x) @ p[1]

        return jax.vmap(one)(x)

    return apply, p, images(5, 4)


@model
def dynamic_loop():
    """A while loop has no reverse derivative."""
    p = arrays((4, 4), (4, 2))

    def apply(p, x):
        def body(carry):
            i, x = carry
            return i + 1, jnp.tanh(x @ p[0])

        steps = jnp.int32(2)
        return lax.while_loop(lambda c: c[0] < steps, body, (0, x))[1] @ p[1]

    return apply, p, images(3, 4)


@model
def parameter_as_output():
    p = arrays((4, 2), (2,))
    return lambda p, x: jnp.broadcast_to(p[1], (len(x), 2)), p, images(3, 4)


@model
def jitted_and_unused():
    """Nested jit, remat, a custom derivative, a leaf that is never used."""
    p = arrays((4, 5), (5,), (5, 2), (3,))

    @jax.jit
    def hidden(p, x):
        return jax.checkpoint(lambda x: jax.nn.relu(x @ p[0] + p[1]))(x)

    return lambda p, x: jax.nn.silu(hidden(p, x)) @ p[2], p, images(3, 4)


@model
def plain_einsum():
    p = arrays((3, 4, 5), (5, 2, 3))

    def apply(p, x):
        return jnp.einsum("bij,ijk,klm->blm", x, p[0], p[1]).reshape(len(x), 6)

    return apply, p, images(3, 3, 4)


@model
def low_rank():
    """A product of parameters as the weight, and a normalised one."""
    p = arrays((4, 2), (2, 4), (4, 3), (3,))

    def apply(p, x):
        weight = p[2] / jnp.linalg.norm(p[2], axis=0) * p[3]
        return jnp.tanh(x @ (p[0] @ p[1])) @ weight

    return apply, p, images(3, 4)
