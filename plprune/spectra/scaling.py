# SPDX-License-Identifier: Apache-2.0
"""Powers of two that bring numbers near 1, so that their squares neither over- nor underflow."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num


def power_of_two(*arrays: Float[Array, "..."]) -> Float[Array, ""]:
    """A power of two between a third and a sixth of the largest |entry|; 1 where all are zero.

    Dividing by it is exact, but for entries that are smaller than the largest by the whole range
    of the dtype. So what is computed from the quotients does not depend on the scale, bit for bit.
    Not finite where an entry is not.
    """
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(a), initial=0) for a in arrays]))
    # Rounded to no bits of mantissa. The quarter keeps the inverse of the largest one normal.
    power = jax.lax.reduce_precision(largest / 4, jnp.finfo(largest.dtype).nexp, 0)
    return jax.lax.stop_gradient(jnp.where(power > 0, power, 1))


def smallest_resolved(dtype: DTypeLike) -> float:
    """Below it numbers were computed from some that underflow may have taken.

    Numbers below tiny are flushed to zero on some devices. tiny/eps keeps what they were from
    counting for more than rounding. Float16 keeps its subnormal numbers everywhere.
    """
    info = jnp.finfo(dtype)
    least = info.smallest_subnormal if info.nexp == 5 else info.tiny
    return float(least) / float(info.eps)


def widened(name: str, array: Num[Array, "..."]) -> Float[Array, "..."]:
    """Real numbers as at least float32, in which eigenvalues can be taken.

    Raises:
      ValueError: complex numbers, or what is no number.
    """
    dtype = jnp.result_type(array)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise ValueError(f"{name} must hold real numbers, got {dtype}.")
    is_wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return jnp.asarray(array, dtype if is_wide else jnp.float32)


def widened_product(
    matvec: Callable[[Float[Array, " n"]], Float[Array, " n"]], like: Num[Array, " n"]
) -> tuple[Callable[[Float[Array, " n"]], Float[Array, " n"]], Float[Array, " n"]]:
    """A product and a vector of its domain in at least float32; it still sees its own dtype.

    Raises:
      ValueError: a vector that is empty or not of real floating-point numbers.
    """
    if not jnp.issubdtype(like.dtype, jnp.floating):
        raise ValueError(f"like must hold real floating-point numbers, got {like.dtype}.")
    if like.size == 0:
        raise ValueError("like must have at least one element, got none.")
    wide = widened("like", like)
    return lambda v: matvec(v.astype(like.dtype)).astype(wide.dtype), wide
