# SPDX-License-Identifier: Apache-2.0
"""Blocks of the kernel from the factors of its rows and columns."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.graph.factors import one_hot_rows
from plprune.graph.taps import OuterProducts, Term

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
# What moving one number through memory costs, in floating-point operations.
_TRAFFIC = 10


class Factors(NamedTuple):
    """A tile of examples, ready to be multiplied with another: K = sum of grams + J J'."""

    grams: tuple[OuterProducts, ...]  # Leaves [t, g, s, i] and [t, r, g, s, o].
    jacobian: Float[Array, "t r p"] | None


def keeps_gram(term: Term, num_outputs: int, num_examples: int) -> bool:
    """Whether multiplying Gram matrices over positions beats materialising this term's Jacobian.

    Counts operations and memory traffic per pair of examples; forming the Jacobian is shared by
    all `num_examples` partners of an example.
    """
    if term.sizes is None:
        return False
    g, s, i, o = term.sizes
    pairs = num_outputs**2
    operand = g * s**2 * (1 if term.is_lookup else 2 * i)
    traffic = 0 if g * s == 1 else _TRAFFIC * g * s**2 * (1 + 2 * pairs)
    gram = operand + g * s**2 * pairs * 2 * (o + 1) + traffic
    # A Jacobian shares one large product with the others, so its own result costs no traffic.
    form = 2 * s * g * i * o * num_outputs + _TRAFFIC * g * i * o * num_outputs
    single = 2 * _TRAFFIC * pairs if g * s == 1 else 0
    return gram + single <= 2 * pairs * g * i * o + form / max(num_examples, 1)


def num_numbers(terms: tuple[Term, ...], grams: tuple[bool, ...], num_outputs: int) -> int:
    """Numbers that one example's `Factors` hold."""
    total = 0
    for term, keep in zip(terms, grams, strict=True):
        if keep:
            g, s, i, o = term.sizes  # pyright: ignore[reportGeneralTypeIssues]
            total += g * s * ((1 if term.is_lookup else i) + num_outputs * o)
        else:
            total += num_outputs * term.num_parameters
    return total


def factors(
    terms: tuple[Term, ...], values: list[Any], grams: tuple[bool, ...], dtype: Any
) -> Factors:
    """`Factors` from the taps' values of a tile, each with leading axis t.

    Args:
      terms: From `find_taps`.
      values: `OuterProducts` or Jacobians, one per term.
      grams: Which terms stay outer products.
      dtype: Of the kernel.
    """
    kept, jacobians = [], []
    for term, value, keep in zip(terms, values, grams, strict=True):
        if isinstance(value, OuterProducts):
            value = _cast(value, dtype)
            if keep:
                kept.append(value)
            else:
                jacobians.append(_materialised(term, value))
        else:
            jacobians.append(value.astype(dtype))
    joined = jnp.concatenate(jacobians, axis=-1) if jacobians else None
    return Factors(tuple(kept), joined)


def _cast(value, dtype):
    operand, cotangent = value
    if not jnp.issubdtype(operand.dtype, jnp.integer):
        operand = operand.astype(dtype)
    return OuterProducts(operand, cotangent.astype(dtype))


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


def block(left: Factors, right: Factors) -> Float[Array, "t r u q"]:
    """The kernel between two tiles."""
    parts = [_gram(a, b) for a, b in zip(left.grams, right.grams, strict=True)]
    if left.jacobian is not None:
        parts.append(_einsum("trp,uqp->truq", left.jacobian, right.jacobian))
    return sum(parts[1:], start=parts[0])


def _gram(left, right):
    (a, c), (b, d) = left, right
    if a.shape[1] * a.shape[2] * b.shape[2] == 1:  # One position: two plain products.
        inner = _operands(a, b, c.dtype)[0, :, 0, :, 0]
        return inner[:, None, :, None] * _einsum("tro,uqo->truq", c[:, :, 0, 0], d[:, :, 0, 0])
    outer = _einsum("trgso,uqgvo->gtsruvq", c, d)
    return _einsum("gtsuv,gtsruvq->truq", _operands(a, b, c.dtype), outer)


def _operands(a, b, dtype):
    if jnp.issubdtype(a.dtype, jnp.integer):
        rows, columns = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
        return (rows[:, :, :, None, None] == columns[:, None, None]).astype(dtype)
    return _einsum("tgsi,ugvi->gtsuv", a, b)


def traced(values: OuterProducts | Array) -> OuterProducts | Array:
    """Cotangents whose kernel is the sum over outputs: the seeds join the produced entries."""
    if isinstance(values, OuterProducts):
        operand, cotangent = values
        moved = jnp.moveaxis(cotangent, 1, -1)
        return OuterProducts(operand, moved.reshape(*moved.shape[:-2], -1)[:, None])
    return values.reshape(values.shape[0], 1, -1)
