# SPDX-License-Identifier: Apache-2.0
"""Which arrays have no negative entries, whatever the data."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

ANY, NONNEGATIVE, POSITIVE = 0, 1, 2  # POSITIVE says nothing of masked entries.

_POSITIVE = frozenset({"exp", "exp2", "logistic"})
_NONNEGATIVE = frozenset(
    {"square", "abs", "eq", "ne", "lt", "le", "gt", "ge", "not", "is_finite", "rsqrt"}
)
_KEEPS = frozenset(
    {"sqrt", "cbrt", "copy", "copy_p", "stop_gradient", "reduce_precision", "real", "mul_add"}
)
_KEEPS_NONNEGATIVE = frozenset(
    {"tanh", "erf", "log1p", "expm1", "floor", "ceil", "round", "convert_element_type", "sinh"}
)

_CAST = "convert_element_type"
_NO_OVERFLOW = frozenset({"max", "min", "select_n", "copy", "copy_p", "stop_gradient"})


def elementwise_sign(
    name: str, params: dict, signs: Sequence[int], kinds: Sequence[str] = ("f",)
) -> int:
    """Sign of an elementwise result.

    Args:
      name: Of the primitive.
      params: Of the equation.
      signs: Of the operands.
      kinds: From `kind_of`, of the operands and the result. Nothing is known of complex numbers,
        nor of integers that may overflow.
    """
    if "c" in kinds:
        return NONNEGATIVE if name == "abs" and kinds[-1] == "f" else ANY
    if kinds[-1] == "i" and name not in _NO_OVERFLOW and not (name == _CAST and kinds[0] == "b"):
        return ANY
    return _real_sign(name, params, signs)


def _real_sign(name, params, signs):
    if name in _POSITIVE:
        return POSITIVE
    if name in _NONNEGATIVE or (name == "integer_pow" and params["y"] % 2 == 0):
        return NONNEGATIVE
    if name in ("add", "add_any"):
        return max(signs) if min(signs) > ANY else ANY
    if name == "max":
        return max(signs)
    if name in ("mul", "div", "min") or name in _KEEPS:
        return min(signs)
    if name == "select_n":
        return min(signs[1:])
    if name in _KEEPS_NONNEGATIVE:
        return min(*signs, NONNEGATIVE)
    return ANY


def kind_of(dtype: Any) -> str:
    """The letter c for complex numbers, b for booleans, i for integers, else f."""
    kinds = {"c": jnp.complexfloating, "b": jnp.bool_, "i": jnp.integer}
    return next((kind for kind, family in kinds.items() if jnp.issubdtype(dtype, family)), "f")


def constant_sign(smallest: float) -> int:
    """Sign of an array with this smallest entry."""
    return POSITIVE if smallest > 0 else NONNEGATIVE if smallest == 0 else ANY
