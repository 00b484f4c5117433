# SPDX-License-Identifier: Apache-2.0
"""Functions of single entries, each with what is known of its results before there are data.

    "sinh": Scalar(np.sinh, _lowest_or_zero)

sinh(0) = 0, so that zeros of masked entries stay, and no result is negative where no operand is. A
function of which nothing is known is a `Scalar()`: its axes may shrink all the same.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from plprune.graph.entries import Linear, in_place
from plprune.graph.shrinking.known import ANY, NONNEGATIVE, POSITIVE, Known, UndefinedError, exact


class Scalar(NamedTuple):
    """A function of single entries, and what can be said of its results beforehand."""

    value: Callable[..., Any] | None = None  # At known numbers, as NumPy has it.
    sign: int | Callable[[dict, Sequence[int]], int] = ANY  # Of reals: (params, signs) -> sign.
    integers: Callable[..., Any] | None = None  # `value` where the result is an integer.
    partly: Callable[..., Known] | None = None  # (operands, dtype), where one of them decides.
    rule: Callable[..., Known] | None = None  # (params, operands, dtype), in place of all these.
    reads: str = ""  # Parameters.
    overflows: bool = True  # Integers may turn out with another sign than the number has.
    rounds: bool = True
    linear: Linear = Linear()

    def at(self, params: dict, operands: Sequence[Known], dtype: Any) -> Known:
        """The result where some operands are known.

        Args:
          params: Of the equation.
          operands: Known values, None where unknown.
          dtype: Of the result, which must hold the value for it to be known.

        Raises:
          UndefinedError: the result is 0/0, or infinite although all operands are finite.
        """
        value = self._value(params, operands, dtype)
        return None if value is None or not _holds(dtype, value) else value

    def _value(self, params, operands, dtype):
        if self.rule is not None:
            return self.rule(params, operands, dtype)
        known = self.partly(operands, dtype) if self.partly and None in operands else None
        is_whole = self.integers is not None and jnp.issubdtype(dtype, jnp.integer)
        value = self.integers if is_whole else self.value
        if value is None or None in operands:
            return known
        with np.errstate(all="ignore"):
            result = float(value(*operands))
        if math.isnan(result) or (math.isinf(result) and all(map(math.isfinite, operands))):
            raise UndefinedError
        return exact(result) if self.rounds else result + 0.0

    def sign_of(self, params: dict, signs: Sequence[int], kinds: Sequence[str] = ("f",)) -> int:
        """Sign of all entries of a result.

        Args:
          params: Of the equation.
          signs: Of the operands.
          kinds: From `kind_of`, of the operands and the result. Nothing is known of complex
            numbers but their modulus, nor of integers that may overflow.
        """
        if "c" in kinds:
            return NONNEGATIVE if self.value is np.abs and kinds[-1] == "f" else ANY
        if kinds[-1] == "i" and self.overflows and kinds[0] != "b":
            return ANY
        return self.sign(params, signs) if callable(self.sign) else self.sign


def _holds(dtype, value):
    if not isinstance(dtype, np.dtype):  # Random keys.
        return False
    with np.errstate(all="ignore"):
        return float(np.real(np.asarray(value).astype(dtype))) == value  # In float64, not in dtype.


def kind_of(dtype: Any) -> str:
    """The letter c for complex numbers, b for booleans, i for integers, else f."""
    kinds = {"c": jnp.complexfloating, "b": jnp.bool_, "i": jnp.integer}
    return next((kind for kind, family in kinds.items() if jnp.issubdtype(dtype, family)), "f")


def _quotient(x, y):
    return math.nan if y == 0 else np.divide(x, y)


def _whole_quotient(x, y):
    return math.nan if y == 0 else math.trunc(x / y)


def _partial_quotient(operands, _):
    if operands[1] == 0:
        raise UndefinedError
    return 0.0 if operands[0] == 0 else None


def _remainder(_, operands, dtype):
    return _partial_quotient(operands, dtype)


def _deciding(value):
    """One operand decides, as zero does in a product."""
    return lambda operands, _: value if value in operands else None


def _either(operands, dtype):
    return 1.0 if 1 in operands and dtype == np.bool_ else None


def _infinite(operands, _):
    return next((x for x in operands if x is not None and math.isinf(x)), None)


def _infinite_difference(operands, dtype):
    infinite = _infinite(operands, dtype)
    return infinite if infinite is None or operands[1] is None else -infinite


def _select(_params, operands, _dtype):
    which, *cases = operands
    if which is not None:
        return cases[int(which)]
    return cases[0] if len(set(cases)) == 1 else None


def _cast(_, operands, dtype):
    (value,) = operands
    if value is None or jnp.issubdtype(dtype, jnp.inexact):  # NumPy has bfloat16 for no float.
        return value
    if dtype == np.bool_:
        return float(value != 0)
    return None if math.isinf(value) else float(math.trunc(value))


def _integer_power(params, operands, _):
    if operands[0] is None:
        return None
    if operands[0] == 0 and params["y"] < 0:
        raise UndefinedError
    return exact(operands[0] ** params["y"])


def _rounded(params, operands, _):
    (value,) = operands
    if value is None or math.isinf(value):
        return value
    if params.get("rounding_method") == lax.RoundingMethod.TO_NEAREST_EVEN:
        return float(np.round(value))
    return math.copysign(math.floor(abs(value) + 0.5), value) + 0.0


def _coarser(params, operands, _):
    (value,) = operands
    coarse = params["exponent_bits"] < 5 or params["mantissa_bits"] < 7  # Less than bfloat16 keeps.
    return None if value is None or (coarse and value != 0) else exact(value)


def _complex(_params, operands, _dtype):
    return operands[0] if operands[1] == 0 else None


def _power_sign(params, _):
    return NONNEGATIVE if params["y"] % 2 == 0 else ANY


def _sum_sign(_, signs):
    return max(signs) if min(signs) > ANY else ANY


def _lowest(_, signs):
    return min(signs)


def _lowest_or_zero(_, signs):
    return min(*signs, NONNEGATIVE)


# Results are entries of the operands.
_chosen = partial(Scalar, rounds=False, overflows=False)
_moved = partial(_chosen, linear=Linear(moves=in_place))
SCALARS: dict[str, Scalar] = {
    **dict.fromkeys(
        ("add", "add_any"), Scalar(np.add, _sum_sign, partly=_infinite, linear=Linear(joins=0))
    ),
    "sub": Scalar(np.subtract, partly=_infinite_difference, linear=Linear(joins=0)),
    "mul": Scalar(np.multiply, _lowest, partly=_deciding(0.0), linear=Linear(scales=(0, 1))),
    "mulhi": Scalar(lambda x, y: -float(x * y < 0), partly=_deciding(0.0)),
    "div": Scalar(
        _quotient, _lowest, _whole_quotient, _partial_quotient, linear=Linear(scales=(0,))
    ),
    "rem": Scalar(rule=_remainder),
    "pow": Scalar(lambda x, y: math.nan if x == 0 and y < 0 else np.power(x, y)),
    "integer_pow": Scalar(rule=_integer_power, sign=_power_sign, reads="y"),
    "neg": Scalar(np.negative, rounds=False, linear=Linear(scales=(0,))),
    "abs": Scalar(np.abs, NONNEGATIVE, rounds=False),
    "sign": Scalar(np.sign, rounds=False),
    "max": _chosen(np.maximum, lambda _, signs: max(signs), partly=_deciding(math.inf)),
    "min": _chosen(np.minimum, _lowest, partly=_deciding(-math.inf)),
    "clamp": _chosen(lambda low, x, high: min(max(x, low), high)),
    "select_n": _chosen(
        rule=_select, sign=lambda _, signs: min(signs[1:]), linear=Linear(joins=1)
    ),
    "stop_gradient": _chosen(lambda x: x, _lowest),
    "copy": _moved(lambda x: x, _lowest),
    "convert_element_type": Scalar(
        rule=_cast, sign=_lowest_or_zero, reads="new_dtype", linear=Linear(moves=in_place)
    ),
    "reduce_precision": Scalar(
        rule=_coarser, sign=_lowest, reads="exponent_bits mantissa_bits"
    ),
    "bitcast_convert_type": Scalar(reads="new_dtype"),
    "round": Scalar(rule=_rounded, sign=_lowest_or_zero, reads="rounding_method"),
    "floor": Scalar(np.floor, _lowest_or_zero), "ceil": Scalar(np.ceil, _lowest_or_zero),
    # Powers, exponentials and what they undo.
    "square": Scalar(np.square, NONNEGATIVE), "sqrt": Scalar(np.sqrt, _lowest),
    "rsqrt": Scalar(lambda x: math.inf if x == 0 else 1 / np.sqrt(x), NONNEGATIVE),
    "cbrt": Scalar(np.cbrt, _lowest), "exp": Scalar(np.exp, POSITIVE),
    "exp2": Scalar(np.exp2, POSITIVE), "expm1": Scalar(np.expm1, _lowest_or_zero),
    "log": Scalar(np.log), "log2": Scalar(np.log2), "log1p": Scalar(np.log1p, _lowest_or_zero),
    "logistic": Scalar(lambda x: 1 / (1 + np.exp(-x)), POSITIVE),
    "erf": Scalar(math.erf, _lowest_or_zero), "erfc": Scalar(lambda x: 1 - math.erf(x)),
    "erf_inv": Scalar(lambda x: x if x == 0 else math.nan),
    "one_minus_square": Scalar(lambda x: 1 - x * x),
    "polynomial": Scalar(lambda x, *c: np.polynomial.polynomial.polyval(x, c)),
    # Trigonometry.
    "sin": Scalar(np.sin), "cos": Scalar(np.cos), "tan": Scalar(np.tan),
    "asin": Scalar(np.arcsin), "acos": Scalar(np.arccos), "atan": Scalar(np.arctan),
    "atan2": Scalar(np.arctan2), "sinh": Scalar(np.sinh, _lowest_or_zero),
    "cosh": Scalar(np.cosh), "tanh": Scalar(np.tanh, _lowest_or_zero),
    "asinh": Scalar(np.arcsinh), "atanh": Scalar(np.arctanh), "acosh": Scalar(),
    # Complex numbers.
    "real": Scalar(lambda x: x, _lowest), "imag": Scalar(lambda _: 0.0),
    "conj": Scalar(lambda x: x), "complex": Scalar(rule=_complex, linear=Linear(joins=0)),
    # Comparisons and bits.
    "eq": Scalar(np.equal, NONNEGATIVE), "ne": Scalar(np.not_equal, NONNEGATIVE),
    "lt": Scalar(np.less, NONNEGATIVE), "le": Scalar(np.less_equal, NONNEGATIVE),
    "gt": Scalar(np.greater, NONNEGATIVE), "ge": Scalar(np.greater_equal, NONNEGATIVE),
    "is_finite": Scalar(np.isfinite, NONNEGATIVE),
    "not": Scalar(np.logical_not, NONNEGATIVE, lambda x: ~int(x)),
    "and": Scalar(np.logical_and, ANY, lambda x, y: int(x) & int(y), _deciding(0.0)),
    "or": Scalar(np.logical_or, ANY, lambda x, y: int(x) | int(y), _either),
    # Nothing is known of their results.
    **dict.fromkeys(
        """xor nextafter shift_left shift_right_logical shift_right_arithmetic population_count clz
        lgamma digamma polygamma zeta igamma igammac igamma_grad_a bessel_i0e
        bessel_i1e regularized_incomplete_beta""".split(),  # noqa: SIM905
        Scalar(),
    ),
}  # fmt: skip
