# SPDX-License-Identifier: Apache-2.0
"""Random compositions: masked == shrunk, kernel == J J', and the groups of any batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from plprune.kernels import tangent_kernel
from plprune.nodes import find_nodes, mask, resize, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))


class Draws:
    """Axes at random, and parameters that one run makes up and the others read."""

    def __init__(self, seed, params=None):
        self._random, self.made = np.random.default_rng(seed), {}
        self._given = params

    def number(self, below):
        return int(self._random.integers(below))

    def axis(self, h):
        return 1 + self.number(h.ndim - 1)

    def leaf(self, *shape):
        name = f"p{len(self.made)}"
        values = np.random.default_rng(len(self.made)).normal(size=shape)
        self.made[name] = jnp.asarray(values) if self._given is None else self._given[name]
        return self.made[name]

    def along(self, h, axis):
        return self.leaf(h.shape[axis]).reshape([-1 if d == axis else 1 for d in range(h.ndim)])


def dense(h, draws):
    axis = draws.axis(h)
    w = draws.leaf(h.shape[axis], 2 + draws.number(3))
    return jnp.moveaxis(jnp.tensordot(h, w, ((axis,), (0,))), -1, axis)


def bias(h, draws):
    return jnp.tanh(h + draws.along(h, draws.axis(h)))


def pointwise(h, draws):
    functions = [jax.nn.relu, jax.nn.sigmoid, jnp.exp, jnp.square, lambda v: v - 1, lax.round]
    functions += [lambda v: jnp.real(jnp.exp(1j * v)), lambda v: (v > 0).astype(v.dtype)]
    return functions[draws.number(len(functions))](h)


def turn(h, draws):
    order = np.random.default_rng(draws.number(99)).permutation(h.ndim - 1) + 1
    return h.transpose(0, *order.tolist())


def divide(h, draws):
    axis = draws.axis(h)
    inner = next((k for k in (2, 3) if h.shape[axis] % k == 0), 1)
    return h.reshape(*h.shape[:axis], h.shape[axis] // inner, inner, *h.shape[axis + 1 :])


def merge(h, draws):
    order = (0, *range(h.ndim - 1, 0, -1)) if draws.number(2) else None
    return lax.reshape(h, (h.shape[0], int(np.prod(h.shape[1:]))), order)


def shuffle(h, draws):
    axis = draws.axis(h)
    size = h.shape[axis]
    inner = next((k for k in (2, 3) if size % k == 0), 1)
    split = h.reshape(*h.shape[:axis], size // inner, inner, *h.shape[axis + 1 :])
    shuffled = split.swapaxes(axis, axis + 1).reshape(h.shape)
    return shuffled if draws.number(2) else h + shuffled


def select(h, draws):
    axis = draws.axis(h)
    size = h.shape[axis]
    start = draws.number(size)
    kinds = [
        lambda: lax.slice_in_dim(h, start, size, 1 + draws.number(2), axis),
        lambda: jnp.flip(h, axis),
        lambda: jnp.roll(h, 1, axis),
        lambda: jnp.take(h, np.arange(size) * 2 % size, axis=axis),
        lambda: lax.pad(
            h, 0.0, [(0, 0, 0)] * axis + [(-1, 2, 1)] + [(0, 0, 0)] * (h.ndim - axis - 1)
        ),
        lambda: jnp.concatenate([h, jnp.sin(h)], axis),
        lambda: jnp.repeat(h, 2, axis),
        lambda: jnp.stack([h, jnp.cos(h)], axis),
    ]
    chosen = kinds[draws.number(len(kinds))]()
    return h if 0 in chosen.shape else chosen


def fold(h, draws):
    if h.ndim < 3:
        return h
    kinds = [jnp.sum, jnp.max, jnp.mean, lambda v, axis: jnp.abs(v).max(axis)]
    kinds += [jnp.prod, lambda v, axis: (v > 0).any(axis).astype(v.dtype)]
    return kinds[draws.number(len(kinds))](h, axis=draws.axis(h))


def along(h, draws):
    axis = draws.axis(h)
    kinds = [
        lambda: lax.cumsum(h, axis, reverse=bool(draws.number(2))),
        lambda: lax.sort(h, dimension=axis),
        lambda: lax.top_k(h + draws.along(h, axis), 1, axis=axis)[0],
        lambda: jax.nn.softmax(h + draws.along(h, axis), axis),
        lambda: jnp.where(jnp.isfinite(h), h, 0.0) * lax.broadcasted_iota(float, h.shape, axis),
        lambda: h * jax.nn.one_hot(h.argmax(axis), h.shape[axis], axis=axis),
    ]
    return kinds[draws.number(len(kinds))]()


def outer(h, draws):
    flat = h.reshape(h.shape[0], -1)[:, :4]
    other = flat if draws.number(2) else jnp.tanh(flat) @ draws.leaf(flat.shape[1], 3)
    return jnp.einsum("bi,bj->bij", flat, other)


def convolve(h, draws):
    image = h.reshape(h.shape[0], -1, h.shape[-1])
    channels = image.shape[-1]
    groups = channels if draws.number(2) else 1
    kernel = draws.leaf(2, channels // groups, groups * 2)
    return lax.conv_general_dilated(
        image, kernel, (1,), "SAME", rhs_dilation=(1 + draws.number(2),),
        dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=groups,
    )  # fmt: skip


LAYERS = [
    dense,
    bias,
    pointwise,
    turn,
    divide,
    merge,
    shuffle,
    select,
    fold,
    along,
    outer,
    convolve,
]


def composed(layers, seed):
    """The function of these layers, and parameters for it."""

    def apply(params, x, draws=None):
        draws = Draws(seed, params) if draws is None else draws
        h = jnp.tanh(jnp.tensordot(x, draws.leaf(3, 4), 1))
        for layer in layers:
            h = layer(h, draws) if h.size <= 400 and h.ndim < 6 else merge(h, draws)[:, :6]
        h = jnp.tanh(h.reshape(h.shape[0], -1))
        return h @ draws.leaf(h.shape[1], 2)

    draws = Draws(seed)
    apply(None, INPUTS, draws)
    return apply, draws.made


def summary(groups):
    return {
        name: (g.size, g.prunable, [(m.path, m.axis, m.index.tolist()) for m in g.members])
        for name, g in groups.items()
    }


@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(LAYERS), min_size=3, max_size=6), st.integers(0, 10**6))
def test_random_functions(layers, seed):
    apply, params = composed(layers, seed)
    groups = find_nodes(apply, params, INPUTS, mode="baked")
    for size in (1, 3):
        inputs = jax.ShapeDtypeStruct((size, 3), float)
        assert summary(find_nodes(apply, params, inputs, mode="baked")) == summary(groups)
    draws = np.random.default_rng(seed)
    sizes = {name: size for name, size in groups.prunable.items() if size > 1}
    keep = {name: np.arange(size) != draws.integers(size) for name, size in sizes.items()}
    small = resize(apply, groups, keep)

    @jax.jit
    def pairs(full, masked, cut):
        jacobians = jax.tree.leaves(jax.jacrev(lambda p: apply(p, INPUTS))(full))
        matrix = jnp.concatenate([j.reshape(4, -1) for j in jacobians], axis=1)
        kernel = tangent_kernel(apply, full, INPUTS, method="layerwise")
        return (small(cut, INPUTS), apply(masked, INPUTS)), (
            kernel.reshape(4, 4),
            matrix @ matrix.T,
        )

    for actual, expected in pairs(params, mask(params, groups, keep), shrink(params, groups, keep)):
        tolerance = 1e-9 * np.abs(expected).max(initial=0, where=np.isfinite(expected))
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=max(tolerance, 1e-12))
