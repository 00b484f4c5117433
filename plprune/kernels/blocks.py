# SPDX-License-Identifier: Apache-2.0
"""Blocks of the kernel from the factors of its rows and columns."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.graph.linear.products import OuterProducts, SharedProducts
from plprune.graph.linear.taps import Term
from plprune.graph.rules.factors import one_hot_rows
from plprune.kernels.routes import Route

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Shared(NamedTuple):
    """J[r, k, g, o, i] = scales[r, k, g, o] shared[g, o, i] of each example; k is summed over."""

    shared: Float[Array, "t g o i"]
    scales: Float[Array, "t r k g o"]


class Factors(NamedTuple):
    """A tile of examples, ready to be multiplied with another: K is the sum over all parts."""

    grams: tuple[OuterProducts, ...]  # Leaves [t, g, s, i] and [t, r, g, s, o].
    lookups: tuple[OuterProducts, ...]  # The same with row numbers [t, g, s].
    shared: tuple[Shared, ...]
    steady: tuple[Array, ...]  # Operands [t, g, s, i] whose cotangents all examples share.
    jacobian: Float[Array, "t r p"] | None


def num_numbers(terms: tuple[Term, ...], routes: tuple[Route, ...], num_outputs: int) -> int:
    """Numbers that one example's `Factors` hold."""
    total = 0
    for term, route in zip(terms, routes, strict=True):
        if route == "jacobian" or term.sizes is None:
            total += num_outputs * term.num_parameters
            continue
        g, s, i, o = term.sizes
        if route == "gram":
            total += g * s * ((1 if term.is_lookup else i) + num_outputs * o)
        elif route == "steady":
            total += g * s * i
        else:
            total += g * o * (i + num_outputs)
    return total


def factors(
    terms: tuple[Term, ...],
    values: list[Any],
    routes: tuple[Route, ...],
    dtype: Any,
    *,
    sums_outputs: bool,
) -> Factors:
    """`Factors` from what `term_jacobians` returns for a tile, each with leading axis t.

    Args:
      terms: From `find_taps`.
      values: `SharedProducts`, `OuterProducts` or Jacobians, one per term.
      routes: How each term is contracted.
      dtype: Of the kernel.
      sums_outputs: For the kernel's sum over outputs instead of the kernel.
    """
    grams, lookups, shared, constant, jacobians = [], [], [], [], []
    for term, value, route in zip(terms, values, routes, strict=True):
        value = _cast(term, value, dtype)
        if route == "shared":
            shared.append(_shared_form(value, sums_outputs))
            continue
        if route == "steady":
            constant.append(value.operand)
            continue
        if isinstance(value, SharedProducts):
            value = jax.vmap(SharedProducts.expanded)(value)
        value = _traced(value) if sums_outputs else value
        if route == "gram":
            (lookups if term.is_lookup else grams).append(value)
        else:
            is_product = isinstance(value, OuterProducts)
            jacobians.append(_materialised(term, value) if is_product else value)
    joined = jnp.concatenate(jacobians, axis=-1) if jacobians else None
    return Factors(tuple(grams), tuple(lookups), tuple(shared), tuple(constant), joined)


def metrics(
    values: list[Any],
    routes: tuple[Route, ...],
    dtype: Any,
    *,
    sums_outputs: bool,
) -> list[Float[Array, "g r s q v"]]:
    """Products of the cotangents that all examples share, for every pair of positions.

    Arguments are those of `factors`, the values of one example and so without the leading axis.
    """
    shared = [v for v, route in zip(values, routes, strict=True) if route == "steady"]
    cotangents = [value.cotangent.astype(dtype) for value in shared]
    if sums_outputs:
        return [_einsum("rgso,rgvo->gsv", c, c)[:, None, :, None] for c in cotangents]
    return [_einsum("rgso,qgvo->grsqv", c, c) for c in cotangents]


def _cast(term, value, dtype):
    """All but the row numbers of a lookup; the inputs of a layer may be integers too."""
    if term.is_lookup:
        return value._replace(cotangent=value.cotangent.astype(dtype))
    return jax.tree.map(lambda a: a.astype(dtype), value)


def _shared_form(value, sums_outputs):
    operand, cotangent, scales = value
    shared = _einsum("tgsi,tgso->tgoi", operand, cotangent)
    return Shared(shared, scales[:, None] if sums_outputs else scales[:, :, None])


def _materialised(term, value):
    operand, cotangent = value
    if term.is_lookup:
        operand = one_hot_rows(operand, term.sizes[2], cotangent.dtype)
    # Entries in the order in which one product yields them: the kernel sums over them anyway.
    dimensions = (((3,), (2,)), ((0, 2), (0, 1)))
    jacobian = jax.lax.dot_general(
        cotangent, operand, dimensions, precision=jax.lax.Precision.HIGHEST
    )
    t, g, r, o, i = jacobian.shape
    return jnp.moveaxis(jacobian, 1, 2).reshape(t, r, g * o * i)


def block(
    left: Factors, right: Factors, weights: Sequence[Float[Array, "g r s q v"]] = ()
) -> Float[Array, "t r u q"]:
    """The kernel between two tiles; `weights` are the `metrics` of the steady terms."""
    parts = [_gram(a, b, _products) for a, b in zip(left.grams, right.grams, strict=True)]
    parts += [_gram(a, b, _matches) for a, b in zip(left.lookups, right.lookups, strict=True)]
    parts += [_shared(a, b) for a, b in zip(left.shared, right.shared, strict=True)]
    for a, b, weight in zip(left.steady, right.steady, weights, strict=True):
        weighed = _einsum("grsqv,ugvi->urqgsi", weight, b)
        parts.append(_einsum("tgsi,urqgsi->truq", a, weighed))
    if left.jacobian is not None:
        parts.append(_einsum("trp,uqp->truq", left.jacobian, right.jacobian))
    return sum(parts[1:], start=parts[0])


def _gram(left, right, operands):
    (a, c), (b, d) = left, right
    if a.shape[1] * a.shape[2] * b.shape[2] == 1:  # One position: two plain products.
        inner = operands(a, b)[0, :, 0, :, 0].astype(c.dtype)
        return inner[:, None, :, None] * _einsum("tro,uqo->truq", c[:, :, 0, 0], d[:, :, 0, 0])
    outer = _einsum("trgso,uqgvo->gtsruvq", c, d)
    return _einsum("gtsuv,gtsruvq->truq", operands(a, b).astype(c.dtype), outer)


def _products(a, b):
    return _einsum("tgsi,ugvi->gtsuv", a, b)


def _matches(a, b):
    """Products of one-hot rows, from the rows' numbers."""
    rows, columns = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
    return rows[:, :, :, None, None] == columns[:, None, None]


def _shared(left, right):
    inner = _einsum("tgoi,ugoi->gotu", left.shared, right.shared)
    # The columns' scales first, for all columns, so that each row is one plain product.
    scaled = _einsum("gotu,uqkgo->tkgouq", inner, right.scales)
    t, r = left.scales.shape[:2]
    u, q = right.scales.shape[:2]
    kernel = _einsum("trp,tpc->trc", left.scales.reshape(t, r, -1), scaled.reshape(t, -1, u * q))
    return kernel.reshape(t, r, u, q)


def _traced(value):
    """Cotangents whose kernel is the sum over outputs: the seeds join the produced entries."""
    if isinstance(value, OuterProducts):
        operand, cotangent = value
        moved = jnp.moveaxis(cotangent, 1, -1)
        return OuterProducts(operand, moved.reshape(*moved.shape[:-2], -1)[:, None])
    return value.reshape(value.shape[0], 1, -1)
