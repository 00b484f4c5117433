# SPDX-License-Identifier: Apache-2.0
"""Layers that look up and write positions of axes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.graph.rules.layer import Layer

ORDER = np.array([2, 0, 1])


def looked_up(h, axis, mode, **options):
    """Entries at positions that depend on the data, some of them beyond the end."""
    positions = (jnp.abs(h[0, 0, :2, 0]) * 4).astype(int) + 3
    return jnp.take(h, positions, axis=axis, mode=mode, **options)


def written(h, axis):
    """Part of an axis overwritten at a position known at run time."""
    where = (jnp.abs(h[0, 0, 0, 0]) < 9).astype(int)
    part = jnp.cos(lax.slice_in_dim(h, 0, 1, axis=axis))
    return lax.dynamic_update_slice_in_dim(h, part, where, axis)


def receivers(v, count):
    """Where rows are sent to, some of them beyond the end."""
    return (jnp.abs(v.sum(-1)) * 4).astype(int) % (count + 1)


def gathered_up(h, how="add", **options):
    """Rows of each example combined at places that depend on it, as messages of a graph are."""

    def one(v):
        nodes = jnp.ones((3, 3), v.dtype) if how == "mul" else jnp.zeros((3, 3), v.dtype)
        return getattr(nodes.at[receivers(v, 3)], how)(v, **options)

    return jax.vmap(one)(h[:, 0])


def windows_written(h, combine=None, **options):
    """Two neighbouring rows at once, at a place that depends on the example."""
    numbers = lax.ScatterDimensionNumbers((0, 1), (), (0,))

    def one(v):
        where = jnp.argmax(v[:, 0])[None]
        if combine is None:
            return lax.scatter_apply(v, where, jnp.sin, numbers, update_shape=(2, 3), **options)
        return combine(v, where, v[:2], numbers, **options)

    return jax.vmap(one)(h[:, 0])


INDEXING = {
    "lookup": Layer(
        lambda h: looked_up(h, 1, "clip")[:, :, :2] * looked_up(h, 2, "fill", fill_value=0.0),
        mixes=True,
    ),
    "lookup filled": Layer(lambda h: looked_up(h, 2, "fill", fill_value=0.5).sum(3), mixes=True),
    "lookup of features": Layer(lambda h: looked_up(h, 3, "wrap"), mixes=True),
    "lookup, mapped": Layer(
        lambda h: jax.vmap(lambda v: jnp.take(v, v.argmax(1)[0, :2], 1, mode="clip"))(h)
    ),
    "fixed lookup": Layer(lambda h: jnp.take(h, ORDER, axis=3) * jnp.take(h, ORDER[:1], axis=2)),
    "lookup along": Layer(lambda h: jnp.take_along_axis(h, h.argmax(2, keepdims=True), 2)),
    "run-time slice": Layer(
        lambda h: lax.dynamic_slice(
            h, (0, (h[0, 0, 0, 0] < 9).astype(int), 0, 0), (h.shape[0], 1, 4, 3)
        ),
        mixes=True,
    ),
    "run-time slice of features": Layer(
        lambda h: lax.dynamic_slice_in_dim(h, (h[0, 0, 0, 0] < 9).astype(int), 2, 3), mixes=True
    ),
    "written": Layer(lambda h: written(h, 1), mixes=True),
    "features written": Layer(lambda h: written(h, 3), mixes=True),
    "scatter": Layer(lambda h: h.at[:, 1].add(h[:, 0])),
    "segment sum": Layer(
        lambda h: jax.vmap(lambda v: jax.ops.segment_sum(v[1], receivers(v[0], 3), 3))(h)
    ),
    "segment sum of features": Layer(
        lambda h: jax.vmap(lambda v: jax.ops.segment_sum(v[1].T, jnp.array([0, 2, 0]), 3))(h)
    ),
    "rows sent": Layer(lambda h: gathered_up(h, mode="clip") * gathered_up(h.astype(jnp.float32))),
    "rows taken away": Layer(
        lambda h: gathered_up(h, "subtract") + gathered_up(h.astype(jnp.float32), "subtract")
    ),
    "rows multiplied": Layer(
        lambda h: (
            gathered_up(h, "mul", unique_indices=True)
            + gathered_up(h.astype(jnp.float32), "mul", unique_indices=True)
        ),
        is_smooth=False,
    ),
    "largest rows": Layer(
        lambda h: gathered_up(h, "max") + gathered_up(h.astype(jnp.float32), "max"), is_smooth=False
    ),
    "smallest rows": Layer(
        lambda h: gathered_up(h, "min") + gathered_up(h.astype(jnp.float32), "min"), is_smooth=False
    ),
    "rows put": Layer(lambda h: h.at[:, 0].set(jnp.cos(h[:, 1])) * h.at[:, :, 2].set(0.5)),
    "features put": Layer(lambda h: h.at[:, :, :, jnp.array([0, 2])].set(0.5)),
    "windows": Layer(
        lambda h: (
            windows_written(h, lax.scatter_add) * windows_written(h, lax.scatter_sub, mode="clip")
            + windows_written(h, lax.scatter_mul, mode="clip", unique_indices=True)
            * windows_written(h, lax.scatter_min, mode="clip")
            * windows_written(h, lax.scatter_max, mode="clip")
        ),
        is_smooth=False,
    ),
    "windows changed": Layer(
        lambda h: windows_written(h) * windows_written(h, lax.scatter, mode="clip"), is_smooth=False
    ),
    "one row put": Layer(lambda h: jax.vmap(lambda v: v.at[v[:, 0, 0].argmax()].add(1.0))(h)),
    "row lookup, mapped": Layer(lambda h: jax.vmap(lambda v: v[v[:, 0, 0].argmax()])(h)),
    "table lookup": Layer(lambda h, w: h * w[h.argmax(2)].sum(2)[:, :, None], {"w": (4, 3)}),
    "table lookup, mapped": Layer(
        lambda h, w: h * jax.vmap(lambda v: w[v.argmax()])(h)[:, None, None], {"w": (24, 3)}
    ),
    "table lookup, beyond the end": Layer(
        lambda h, w: h * jax.vmap(lambda v: lax.dynamic_index_in_dim(w, v.argmax() - 9))(h),
        {"w": (4, 4, 3)},
    ),
}
