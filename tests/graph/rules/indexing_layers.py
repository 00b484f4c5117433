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
