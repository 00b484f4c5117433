# SPDX-License-Identifier: Apache-2.0
"""Layers that use jax's primitives with parameters other than the usual ones."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from tests.graph.rules.indexing_layers import INDEXING
from tests.graph.rules.layer import Layer


def convolved(image, kernel, **options):
    """Channels last; windows and strides of one unless told otherwise."""
    settings = {"window_strides": (1, 1), "padding": ((1, 1), (0, 1))} | options
    return lax.conv_general_dilated(
        image, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings
    )


def pooled(h, fold, start, **options):
    """A window of two along the third axis, unless told otherwise."""
    settings = {
        "window_dimensions": (1, 1, 2, 1),
        "window_strides": (1, 1, 1, 1),
        "padding": ((0, 0), (0, 0), (0, 1), (0, 0)),
    }
    h = lax.reduce_window(h, start, fold, **settings | options)
    return jnp.where(jnp.isfinite(h), h, 0.0)


def chosen(h, axis, dtype=jnp.int32):
    """The largest entry of each row, found by comparing its position with all."""
    winner = jnp.expand_dims(lax.argmax(h, axis, dtype), axis)
    return h * (winner == lax.broadcasted_iota(dtype, h.shape, axis))


@jax.custom_vjp
def clipped(h):
    """Doubled, with a derivative of its own."""
    return h * 2


clipped.defvjp(lambda h: (h * 2, None), lambda _, cotangent: (jnp.clip(cotangent, -1, 1),))


def scanned(h, axis, **options):
    """A running product along an axis, and where it ends."""
    xs = jnp.moveaxis(h, axis, 0)
    last, steps = lax.scan(lambda c, v: (jnp.tanh(c + v), c * v), xs[0], xs, **options)
    return jnp.moveaxis(steps, 0, axis) + jnp.expand_dims(last, axis)


def folded(name, h, axes):
    """A fold of jax.lax by name."""
    flags = (h > 0.1) if name in ("and", "or", "xor") else h
    operation = {"and": lax.reduce_and, "or": lax.reduce_or, "xor": lax.reduce_xor}
    operation |= {"prod": lax.reduce_prod, "min": lax.reduce_min}
    return operation[name](flags, axes).astype(h.dtype)


def bits(h, axis):
    """All bits of integers that every entry has."""
    whole = jnp.exp(2 * h).astype(jnp.int32)
    return lax.reduce_and(whole, (axis,)).astype(h.dtype)


def ordered(h, axis, num_keys):
    """Sorted by itself, together with another array."""
    return lax.sort((jnp.round(h), jnp.sin(h)), dimension=axis, num_keys=num_keys)[1]


def spread(h, *partition):
    """On all devices along the axes of an image that are named."""
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))
    return lax.with_sharding_constraint(h, NamedSharding(mesh, PartitionSpec(*partition)))


def mixture(rows, w):
    """Rows [n, 3] sorted by expert, each multiplied with its expert's matrix, and put back."""
    chosen = jnp.abs(rows.sum(1) * 9).astype(int) % len(w)
    order = jnp.argsort(chosen)
    products = lax.ragged_dot(rows[order], w, jnp.bincount(chosen, length=len(w)))
    return products[jnp.argsort(order)]


LAYERS = {
    "transpose": Layer(lambda h: h.transpose(0, 3, 1, 2)),
    "reshape that moves axes": Layer(lambda h: lax.reshape(h, (h.shape[0], 24), (0, 3, 1, 2))),
    "reshape that moves the batch": Layer(
        lambda h: lax.reshape(h, (6, 4, h.shape[0]), (1, 3, 2, 0)).transpose(2, 0, 1), mixes=True
    ),
    "Fortran order": Layer(lambda h: jax.vmap(lambda v: v.ravel(order="F"))(h)),
    "indices in Fortran order": Layer(
        lambda h: h[:, jnp.arange(6).reshape(2, 3).ravel(order="F")], on_image=False
    ),
    "square shuffle": Layer(
        lambda h: h[:, :4].reshape(-1, 2, 2).swapaxes(1, 2).reshape(-1, 4), on_image=False
    ),
    "spread over devices": Layer(
        lambda h, w: (
            spread(spread(h, None, None, "devices"), None, None, None, "devices")
            @ jnp.tanh(
                lax.with_sharding_constraint(w, SingleDeviceSharding(jax.local_devices()[0]))
            )
        ),
        {"w": (3, 5)},
    ),
    "squeeze": Layer(lambda h: jnp.squeeze(h[:, None, :, :, None], (1, 4))),
    "broadcast": Layer(lambda h: lax.broadcast_in_dim(h, (h.shape[0], 2, 4, 2, 3), (0, 1, 2, 4))),
    "rev": Layer(lambda h: lax.rev(h, (1, 3))),
    "rev one axis": Layer(lambda h: lax.rev(h, (3,)) * h),
    "concatenate": Layer(lambda h: lax.concatenate([h, jnp.tanh(h)], 3)),
    "concatenate elsewhere": Layer(lambda h: lax.concatenate([h, jnp.tanh(h)], 1)),
    "split": Layer(lambda h: lax.split(h, (1, 2), 3)[1] * lax.split(h, (1, 3), 2)[0][..., :2]),
    "slice": Layer(lambda h: lax.slice(h, (0, 0, 1, 0), (h.shape[0], 1, 4, 3), (1, 1, 2, 2))),
    "pad": Layer(lambda h: lax.pad(h, 0.0, ((0, 0, 0), (1, -1, 0), (0, 0, 1), (-1, 1, 0)))),
    "pad with ones": Layer(lambda h: lax.pad(h, 1.0, ((0, 0, 0),) * 3 + ((0, 2, 1),))),
    "pad to one position": Layer(lambda h: lax.pad(h, 0.0, ((0, 0, 0),) * 3 + ((-1, -1, 0),))),
    "iota": Layer(lambda h: h * lax.broadcasted_iota(float, h.shape, 3)),
    "iota elsewhere": Layer(
        lambda h: h * lax.broadcasted_iota(jnp.int32, h.shape, 1).astype(h.dtype)
    ),
    "stack": Layer(lambda h: jnp.stack([h, jnp.sin(h)], 1) * jnp.stack([h, h], 4)[..., 0][:, None]),
    "unstack": Layer(lambda h: jnp.unstack(h, axis=1)[0] + jnp.unstack(h, axis=2)[1][..., :1, :]),
    "tile": Layer(lambda h: jnp.tile(h, (1, 1, 1, 2))),
    "tile elsewhere": Layer(lambda h: jnp.tile(h, (1, 2, 1, 1))),
    "fold and": Layer(lambda h: folded("and", h, (3,)) * folded("and", h, (2,)).mean(2)[..., None]),
    "fold or": Layer(lambda h: folded("or", h, (1,)) * folded("or", h, (2,))[:, :1]),
    "fold xor": Layer(lambda h: folded("xor", h, (1, 2)) * folded("xor", h, (2,))[:, 0]),
    "fold prod": Layer(lambda h: folded("prod", h, (1,)) * folded("prod", h, (2,))[:, :1]),
    "fold min": Layer(lambda h: folded("min", h, (1,)) * folded("min", h, (2,))[:, :1]),
    "fold max": Layer(lambda h: h.max(2) * h.max((1, 2))[:, None]),
    "fold bits": Layer(lambda h: bits(h, 3)),
    "max of squares": Layer(lambda h: (h * h).max(3)),
    "max of complex squares": Layer(lambda h: jnp.real((h * 1j) ** 2).max(3)),
    "sum": Layer(lambda h: h.sum(1) * h.sum((1, 2))[:, None]),
    "argmax": Layer(lambda h: chosen(jnp.exp(h), 3)),
    "argmax elsewhere": Layer(lambda h: chosen(h, 1) * jax.nn.one_hot(h.argmin(1), 2, axis=1)),
    "argmin": Layer(lambda h: jax.nn.one_hot(lax.argmin(h, 3, jnp.int32), 3)),
    "cumsum": Layer(lambda h: lax.cumsum(h, 1, reverse=True) * lax.cumsum(h, 2)),
    "cumprod": Layer(lambda h: lax.cumprod(h, 2, reverse=True) * lax.cumprod(h, 1)),
    "cummax": Layer(lambda h: lax.cummax(h, 2, reverse=True) * lax.cummax(h, 1)),
    "cummin": Layer(lambda h: lax.cummin(h, 1, reverse=True) * lax.cummin(h, 2)),
    "cumlogsumexp": Layer(lambda h: lax.cumlogsumexp(h, 2, reverse=True) + lax.cumlogsumexp(h, 1)),
    "cumsum of features": Layer(lambda h: lax.cumsum(h, 3)),
    "sort": Layer(lambda h: ordered(h, 2, 2) * ordered(h, 1, 1)),
    "top k": Layer(lambda h: lax.top_k(h, 2, axis=1)[0] * lax.top_k(h, 3, axis=2)[0][:, :, :1]),
    "top k of features": Layer(lambda h: lax.top_k(h, 1)[0]),
    "top k, mapped": Layer(
        lambda h: jax.vmap(lambda v: lax.top_k(v, 2, axis=1)[0], in_axes=3, out_axes=2)(h)
    ),
    "average pool": Layer(lambda h: pooled(h, lax.add, 0.0, window_strides=(1, 1, 2, 1))),
    "max pool": Layer(
        lambda h: pooled(h, lax.max, -jnp.inf, window_dilation=(1, 1, 2, 1)), is_smooth=False
    ),
    "min pool": Layer(
        lambda h: pooled(h, lax.min, jnp.inf, padding=((0, 0),) * 4, window_dimensions=(1, 2, 1, 1))
    ),
    "pool between zeros": Layer(lambda h: pooled(h, lax.add, 0.0, base_dilation=(1, 2, 1, 2))),
    "max pool, padded": Layer(
        lambda h: pooled(
            h,
            lax.max,
            -jnp.inf,
            padding=((0, 0), (1, 0), (0, 0), (0, 1)),
            window_dimensions=(1,) * 4,
        )
    ),
    "average pool of features": Layer(
        lambda h: pooled(h, lax.add, 0.0, padding=((0, 0),) * 4, window_dimensions=(1, 1, 1, 2))
    ),
    "max pool between": Layer(lambda h: pooled(h, lax.max, -jnp.inf, base_dilation=(1, 1, 2, 1))),
    "pool by min between": Layer(
        lambda h: pooled(
            h, lax.min, jnp.inf, base_dilation=(1, 1, 1, 2), window_dilation=(1, 1, 3, 1)
        ),
        is_smooth=False,
    ),
    "max pool with strides": Layer(
        lambda h: (
            pooled(h, lax.max, -jnp.inf, window_strides=(1, 1, 3, 1))
            * pooled(h, lax.min, jnp.inf, window_strides=(1, 1, 3, 1))
            * pooled(h, lax.add, 0.0, window_dilation=(1, 1, 2, 1))[:, :, :2]
        )
    ),
    "dot": Layer(lambda h, w: h @ w, {"w": (3, 5)}),
    "dot with batches": Layer(
        lambda h, w: lax.dot_general(
            h, w, (((2,), (1,)), ((3,), (0,))), preferred_element_type=float
        ).transpose(1, 0, 2, 3),
        {"w": (3, 4, 5)},
    ),
    "dot over two axes": Layer(lambda h, w: jnp.einsum("bxyc,cxo->byo", h, w), {"w": (3, 2, 5)}),
    "experts, sorted": Layer(
        lambda h, w: mixture(h.reshape(-1, 3), w).reshape(*h.shape[:3], 5),
        {"w": (3, 3, 5)},
        mixes=True,
    ),
    "experts, sorted by example": Layer(
        lambda h, w: jax.vmap(mixture)(
            h.reshape(-1, 8, 3), w[None] * jnp.cos(h.mean((1, 2))[:, None, :, None])
        ),
        {"w": (3, 3, 5)},
        is_smooth=False,
    ),
    "convolution": Layer(lambda h, k: convolved(h, k, window_strides=(1, 2)), {"k": (2, 2, 3, 5)}),
    "dilated convolution": Layer(
        lambda h, k: convolved(h, k, lhs_dilation=(1, 2), rhs_dilation=(2, 1)),
        {"k": (2, 2, 3, 5)},
    ),
    "grouped convolution": Layer(
        lambda h, k: convolved(h, k, feature_group_count=3), {"k": (2, 1, 1, 6)}
    ),
    "convolution of batch groups": Layer(
        lambda h, k: lax.conv_general_dilated(
            jnp.concatenate([h, jnp.sin(h)]),
            k,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            batch_group_count=2,
        ),
        {"k": (1, 2, 3, 4)},
        mixes=True,
    ),
    "channels first": Layer(
        lambda h, k: lax.conv_general_dilated(h.transpose(0, 3, 1, 2), k, (1, 1), "SAME"),
        {"k": (5, 3, 1, 2)},
    ),
    "kernels mapped": Layer(
        lambda h, k: jax.vmap(lambda w: convolved(h, w), out_axes=1)(k), {"k": (2, 1, 2, 3, 5)}
    ),
    "images mapped": Layer(
        lambda h, k: jax.vmap(lambda v, s: convolved(v[None], k * s)[0])(h, h.mean((1, 2, 3))),
        {"k": (1, 2, 3, 5)},
    ),
    **INDEXING,
    "scan": Layer(lambda h: scanned(h, 1, reverse=True) * scanned(h, 2, unroll=2)),
    "scan over features": Layer(lambda h: scanned(h, 3)),
    "cond": Layer(lambda h: lax.cond(h.sum() > 9, jnp.sin, lambda v: v * 2, h), mixes=True),
    "while": Layer(
        lambda h: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] ** 2), (0, h))[1]
    ),
    "while something holds": Layer(
        lambda h, w: lax.while_loop(
            lambda c: jnp.sum(c * c) > 0.1 * jnp.sum(w * w), lambda c: jnp.tanh(c) * 0.9 @ w, h
        ),
        {"w": (3, 3)},
        mixes=True,
    ),
    "while, mapped": Layer(
        lambda h: jax.vmap(
            lambda v: lax.fori_loop(0, jnp.int32(9 * v.sum() ** 2) % 4, lambda _, c: c * v, v)
        )(h)
    ),
    "custom derivatives": Layer(
        lambda h: jax.nn.silu(jax.nn.relu(h)) + jax.nn.logsumexp(h, 1)[:, None]
    ),
    "gradient clipped": Layer(clipped),
    "straight through": Layer(
        lambda h: lax.optimization_barrier(h) + lax.stop_gradient(jnp.round(h) - h)
    ),
    "rounded": Layer(lambda h: lax.round(jnp.exp(h) / 2) * jnp.round(jnp.exp(h) / 2)),
    "powers": Layer(lambda h: lax.integer_pow(h, 2) + lax.integer_pow(h, 3)),
    "few bits": Layer(
        lambda h: lax.reduce_precision(jnp.exp(h) * 1.25, 5, 1) * lax.reduce_precision(h, 8, 10)
    ),
    "casts": Layer(lambda h: (h - 1).astype(jnp.uint8).astype(float) + h.astype(jnp.float16)),
    "brain floats": Layer(
        lambda h: jax.nn.sigmoid(h).astype(jnp.bfloat16).astype(float).max(3), is_smooth=False
    ),
    "integers": Layer(lambda h: (~(h * 4).astype(jnp.int32) // 2).astype(float)),
    "special functions": Layer(lambda h: jax.scipy.special.polygamma(1, jnp.exp(h)) * h),
    "high bits": Layer(
        lambda h: lax.mulhi((h * 2**30).astype(jnp.int32), (h * 2**30).astype(jnp.int32)) * h
    ),
    "bitcast": Layer(lambda h: (lax.bitcast_convert_type(h, jnp.int32) & 1).astype(float)[..., 0]),
    "bitcast back": Layer(
        lambda h: lax.bitcast_convert_type(lax.bitcast_convert_type(h, jnp.int64), jnp.float64)
    ),
    "Fourier": Layer(
        lambda h, v, w: jnp.fft.irfft(jnp.fft.rfft(h, axis=3) * lax.complex(w, v), 3, axis=3),
        {"w": (2,), "v": (2,)},
    ),
    "Fourier along rows": Layer(
        lambda h, v, w: jnp.fft.irfft(jnp.fft.rfft(h, axis=2) @ lax.complex(w, v), 4, axis=2),
        {"w": (3, 5), "v": (3, 5)},
    ),
    "Fourier along two axes": Layer(
        lambda h: jnp.real(jnp.fft.fft2(jnp.tanh(h), axes=(1, 2)) * jnp.fft.ifft(h, axis=2))
    ),
    "phases": Layer(lambda h, w: jnp.imag(jnp.exp(1j * h) @ w.astype(complex)), {"w": (3, 5)}),
}
