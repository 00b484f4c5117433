# SPDX-License-Identifier: Apache-2.0
"""What scalar arithmetic says of entries whose values are known without data."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Known = float | None  # None: not known, but taken to be finite.


class UndefinedError(ArithmeticError):
    """Known operands give infinity or no number at all."""


def exact(value: float) -> Known:
    """The value if every float type represents it, else None."""
    if math.isinf(value) or (abs(value) <= 4 and (value * 32).is_integer()):
        return value + 0.0  # No negative zero.
    return None


def entries(constant: Any) -> np.ndarray | None:
    """A constant's numbers; None for random keys and for what an outer trace has yet to compute."""
    if str(getattr(constant, "dtype", "")).startswith("key"):
        return None
    try:
        return np.asarray(constant)
    except jax.errors.TracerArrayConversionError:
        return None


def elementwise_value(name: str, params: dict, operands: Sequence[Known], dtype) -> Known:
    """Result of an elementwise primitive where some operands are known.

    Args:
      name: Of the primitive.
      params: Of the equation.
      operands: Known values, None where unknown.
      dtype: Of the result, which must hold the value for it to be known.

    Raises:
      UndefinedError: the result is 0/0, or infinite although all operands are finite.
    """
    value = _value(name, params, operands, dtype)
    return None if value is None or not _holds(dtype, value) else value


def _holds(dtype, value):
    if not isinstance(dtype, np.dtype):  # Random keys.
        return False
    with np.errstate(all="ignore"):
        return bool(np.asarray(value).astype(dtype) == value)


def _value(name, params, operands, dtype):
    if name in ("div", "rem") and operands[1] == 0:
        raise UndefinedError
    if name in _SPECIAL:
        return _SPECIAL[name](params, operands, dtype)
    if None in operands:
        return _partly_known(name, operands, dtype)
    functions = _FUNCTIONS
    if jnp.issubdtype(dtype, jnp.integer):
        functions = _FUNCTIONS | _INTEGER_FUNCTIONS
    if name not in functions:
        return None
    with np.errstate(all="ignore"):
        result = float(functions[name](*operands))
    if math.isnan(result) or (math.isinf(result) and all(map(math.isfinite, operands))):
        raise UndefinedError
    return exact(result)


def _partly_known(name, operands, dtype):
    """One operand can decide: 0 in a product, infinity in a sum."""
    if 0 in operands and name in ("mul", "and"):
        return 0.0
    if name in ("div", "rem") and operands[0] == 0:
        return 0.0
    if name == "or" and 1 in operands and dtype == np.bool_:
        return 1.0
    infinite = next((x for x in operands if x is not None and math.isinf(x)), None)
    if infinite is not None and name in ("add", "add_any", "sub"):
        return -infinite if name == "sub" and operands[0] is None else infinite
    if (name, infinite) in (("min", -math.inf), ("max", math.inf)):
        return infinite
    return None


def _select(params, operands, dtype):
    del params, dtype
    which, *cases = operands
    if which is not None:
        return cases[int(which)]
    return cases[0] if len(set(cases)) == 1 else None


def _cast(params, operands, dtype):
    del params
    (value,) = operands
    if value is None or jnp.issubdtype(dtype, jnp.inexact):  # NumPy has bfloat16 for no float.
        return value
    if dtype == np.bool_:
        return float(value != 0)
    return None if math.isinf(value) else float(math.trunc(value))


def _integer_pow(params, operands, dtype):
    del dtype
    if operands[0] is None:
        return None
    if operands[0] == 0 and params["y"] < 0:
        raise UndefinedError
    return exact(operands[0] ** params["y"])


def _round(params, operands, dtype):
    del dtype
    (value,) = operands
    if value is None or math.isinf(value):
        return value
    if params.get("rounding_method") == lax.RoundingMethod.TO_NEAREST_EVEN:
        return float(np.round(value))
    return math.copysign(math.floor(abs(value) + 0.5), value) + 0.0


def _reduce_precision(params, operands, dtype):
    del dtype
    (value,) = operands
    coarse = params["exponent_bits"] < 5 or params["mantissa_bits"] < 7  # Less than bfloat16 keeps.
    return None if coarse and value != 0 else value


def _complex(params, operands, dtype):
    del params, dtype
    return operands[0] if operands[1] == 0 else None


def _erf(x):
    return math.erf(x)


def _power(x, y):
    return float("nan") if x == 0 and y < 0 else np.power(x, y)


_SPECIAL: dict[str, Callable] = {
    "select_n": _select,
    "convert_element_type": _cast,
    "integer_pow": _integer_pow,
    "round": _round,
    "reduce_precision": _reduce_precision,
    "complex": _complex,
}
_INTEGER_FUNCTIONS: dict[str, Callable] = {
    "div": lambda x, y: math.trunc(x / y),
    "not": lambda x: ~int(x),
    "and": lambda x, y: int(x) & int(y),
    "or": lambda x, y: int(x) | int(y),
}
_FUNCTIONS: dict[str, Callable] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "max": np.maximum, "min": np.minimum, "pow": _power, "neg": np.negative, "sign": np.sign,
    "floor": np.floor, "ceil": np.ceil, "exp": np.exp, "exp2": np.exp2,
    "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "tanh": np.tanh, "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "atanh": np.arctanh,
    "atan2": np.arctan2, "logistic": lambda x: 1 / (1 + np.exp(-x)), "erf": _erf,
    "erfc": lambda x: 1 - _erf(x), "erf_inv": lambda x: x if x == 0 else math.nan * 0,
    "rsqrt": lambda x: np.inf if x == 0 else 1 / np.sqrt(x), "sqrt": np.sqrt, "cbrt": np.cbrt,
    "square": np.square, "abs": np.abs, "real": lambda x: x, "imag": lambda _: 0.0,
    "conj": lambda x: x,
    "stop_gradient": lambda x: x, "copy": lambda x: x, "copy_p": lambda x: x,
    "is_finite": np.isfinite, "eq": np.equal,
    "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "not": np.logical_not, "and": np.logical_and, "or": np.logical_or,
    "clamp": lambda low, x, high: min(max(x, low), high),
}  # fmt: skip
