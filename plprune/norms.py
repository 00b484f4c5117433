# SPDX-License-Identifier: Apache-2.0
"""Norms that neither a small dtype nor a large scale spoils: at least float32, and scaled first."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def at_least_float32(*dtypes: Any) -> jnp.dtype:
    """The widest of the dtypes' real types, float32 where all are narrower or not floating."""
    bits = [jnp.finfo(d).bits for d in dtypes if jnp.issubdtype(d, jnp.inexact)]
    return jnp.dtype(jnp.float64 if max(bits, default=32) > 32 else jnp.float32)


def raised(leaf: Any) -> Any:
    """A half-precision leaf in float32; any other as it is."""
    if not is_real(leaf):
        return leaf
    return jnp.asarray(leaf, at_least_float32(jnp.result_type(leaf)))


def raised_for(function: Callable, *trees: PyTree) -> tuple[PyTree, ...]:
    """Trees with every half-precision leaf in float32, if `function` accepts them so.

    A function that insists on its own dtype, as a loop with a carry in half precision does, is left
    with the trees as they are: it is then computed in that dtype.
    """
    real = [jnp.result_type(leaf) for leaf in jax.tree.leaves(trees) if is_real(leaf)]
    if all(jnp.finfo(dtype).bits >= 32 for dtype in real):
        return trees
    wide = jax.tree.map(raised, trees)
    try:
        jax.eval_shape(function, *wide)
    except (TypeError, ValueError):
        return trees
    return wide


def is_real(leaf: Any) -> bool:
    """Whether a leaf holds real floating-point numbers, in any precision."""
    dtype = leaf.dtype if isinstance(leaf, jax.Array) else jnp.result_type(leaf)
    return jnp.issubdtype(dtype, jnp.floating)


def scale_of(peak: Float[Array, "..."]) -> Float[Array, "..."]:
    """A power of two near each peak, by which division is exact; 1 for zero, infinity and NaN.

    No gradient passes through it: norms are homogeneous, so that a fixed scale cancels.
    """
    limits = jnp.finfo(peak.dtype)
    # A quarter: neither it nor its reciprocal then leaves the range of the dtype.
    power = jax.lax.reduce_precision(jax.lax.stop_gradient(peak) / 4, limits.nexp, 0)
    usable = (peak > 0) & jnp.isfinite(peak)
    return jnp.where(usable, jnp.maximum(power, limits.tiny), jnp.ones_like(power))


def root(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root, with derivative 0 at 0 instead of infinity."""
    zero = square == 0
    return jnp.where(zero, jnp.zeros_like(square), jnp.sqrt(jnp.where(zero, 1, square)))


def tree_norm(tree: PyTree) -> Float[Array, ""]:
    """l2 norm over the floating leaves of a tree, in float32 or wider.

    Right wherever the norm itself is a number of that dtype, though squares be out of range. Its
    derivative at zero is zero. Two passes over the leaves.
    """
    leaves = _parts(tree)
    scale, length = _scaled_length(leaves)
    return scale * length


def unit(tree: PyTree) -> tuple[PyTree, Float[Array, ""]]:
    """The tree divided by its norm, in float32 or wider, and that norm.

    Zero where the norm is; leaves that are not floating come back as they are.
    """
    scale, length = _scaled_length(_parts(tree))
    zero = length == 0

    def direction(leaf):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            return leaf
        wide = jnp.asarray(raised(leaf))
        dtype = at_least_float32(wide.dtype)
        return wide / scale.astype(dtype) / jnp.where(zero, 1, length).astype(dtype)

    return jax.tree.map(direction, tree), scale * length


def _scaled_length(leaves: Iterable[Array]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A power of two, and the norm of the leaves divided by it."""
    dtype = at_least_float32(*(leaf.dtype for leaf in leaves))
    peaks = [jnp.max(jnp.abs(leaf), initial=0).astype(dtype) for leaf in leaves]
    scale = scale_of(jnp.max(jnp.stack([jnp.zeros((), dtype), *peaks])))
    squares = [jnp.sum(jnp.square(leaf / scale.astype(leaf.dtype))) for leaf in leaves]
    total = sum((s.astype(dtype) for s in squares), start=jnp.zeros((), dtype))
    return scale, root(total)


def _parts(tree):
    """Floating leaves in float32 or wider; of complex ones both parts."""
    parts = []
    for leaf in jax.tree.leaves(tree):
        if _is_complex(leaf):
            parts += [jnp.real(leaf), jnp.imag(leaf)]
        elif is_real(leaf):
            parts.append(raised(leaf))
    return parts


def _is_complex(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating)
