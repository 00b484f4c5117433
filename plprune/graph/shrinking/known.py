# SPDX-License-Identifier: Apache-2.0
"""Numbers and signs that are known without data."""

import math
from typing import Any

import jax
import numpy as np

Known = float | None  # None: not known, but taken to be finite.
ANY, NONNEGATIVE, POSITIVE = 0, 1, 2  # Signs; POSITIVE says nothing of masked entries.


class UndefinedError(ArithmeticError):
    """Known operands give infinity or no number at all."""


def exact(value: float) -> Known:
    """The value if every float type represents it, else None."""
    if math.isinf(value) or (abs(value) <= 4 and (value * 32).is_integer()):
        return value + 0.0  # No negative zero.
    return None


def stored(number: Any) -> Known:
    """The value that an array holds, None if it is none or a float cannot tell it from others."""
    value = float(number)
    return (
        value + 0.0
        if value == number and (abs(value) < 2**53 or number.dtype.kind == "f")
        else None
    )


def entries(constant: Any) -> np.ndarray | None:
    """A constant's numbers; None for random keys and for what an outer trace has yet to compute."""
    if str(getattr(constant, "dtype", "")).startswith("key"):
        return None
    try:
        return np.asarray(constant)
    except jax.errors.TracerArrayConversionError:
        return None


def constant_sign(smallest: float) -> int:
    """Sign of an array with this smallest entry."""
    return POSITIVE if smallest > 0 else NONNEGATIVE if smallest == 0 else ANY
