# SPDX-License-Identifier: Apache-2.0
"""What is known of the results of scalar functions."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plprune.graph.rules.scalars import SCALARS
from plprune.graph.shrinking.known import ANY, NONNEGATIVE, POSITIVE, UndefinedError, exact


@pytest.mark.parametrize(
    ("name", "operands", "expected"),
    [
        ("exp", [0.0], 1.0),
        ("logistic", [0.0], 0.5),
        ("exp", [-np.inf], 0.0),
        ("mul", [0.0, None], 0.0),
        ("add", [0.0, None], None),
        ("sub", [-np.inf, None], -np.inf),
        ("div", [0.0, None], 0.0),
        ("max", [0.0, 0.0], 0.0),
        ("log1p", [1.0], None),  # log 2 is not exact.
        ("one_minus_square", [0.5], 0.75),
        ("polynomial", [0.0, 1.0, 5.0], 1.0),
        ("polynomial", [None, 0.0, 1.0], None),
        ("log2", [8.0], 3.0),
        ("select_n", [1.0, None, 0.0], 0.0),
        ("select_n", [None, 0.0, 0.0], 0.0),
    ],
)
def test_known_values(name, operands, expected):
    assert SCALARS[name].at({}, operands, np.dtype("float32")) == expected


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("div", [None, 0.0]),
        ("rsqrt", [0.0]),
        ("log", [0.0]),
        ("sub", [np.inf, np.inf]),
        ("pow", [0.0, -1.0]),
    ],
)
def test_undefined_values(name, operands):
    with pytest.raises(UndefinedError):
        SCALARS[name].at({}, operands, np.dtype("float32"))


@pytest.mark.parametrize(
    ("name", "params", "operands", "dtype", "expected"),
    [
        ("and", {}, [2.0, 1.0], "int32", 0.0),
        ("and", {}, [0.0, None], "int32", 0.0),
        ("or", {}, [1.0, None], "int32", None),
        ("or", {}, [1.0, None], "bool", 1.0),
        ("not", {}, [1.0], "int32", -2.0),
        ("not", {}, [1.0], "bool", 0.0),
        ("div", {}, [1.0, 2.0], "int32", 0.0),
        ("neg", {}, [1.0], "uint8", None),  # 255, which no rule follows.
        ("convert_element_type", {}, [-1.0], "uint8", None),
        ("convert_element_type", {}, [1.03125], "float8_e4m3fn", None),
        ("convert_element_type", {}, [0.5], "bfloat16", 0.5),
        ("convert_element_type", {}, [0.5], "complex64", 0.5),
        ("convert_element_type", {}, [-0.5], "int8", 0.0),
        ("round", {"rounding_method": lax.RoundingMethod.AWAY_FROM_ZERO}, [0.5], "float32", 1.0),
        ("round", {"rounding_method": lax.RoundingMethod.TO_NEAREST_EVEN}, [0.5], "float32", 0.0),
        ("reduce_precision", {"exponent_bits": 5, "mantissa_bits": 1}, [1.25], "float32", None),
        ("reduce_precision", {"exponent_bits": 8, "mantissa_bits": 7}, [1.25], "float32", 1.25),
        ("reduce_precision", {"exponent_bits": 8, "mantissa_bits": 7}, [0.1], "float32", None),
        ("min", {}, [0.0, 6.0], "float32", 0.0),
        ("max", {}, [0.1, -8.7], "float64", 0.1),
        ("clamp", {}, [-9.3, 0.0, 9.3], "float32", 0.0),
        ("convert_element_type", {}, [0.1], "float32", None),
        ("complex", {}, [0.0, 0.0], "complex64", 0.0),
        ("complex", {}, [0.0, None], "complex64", None),
        ("imag", {}, [1.0], "float32", 0.0),
    ],
)
def test_known_values_are_those_of_the_dtype(name, params, operands, dtype, expected):
    assert SCALARS[name].at(params, operands, jnp.dtype(dtype)) == expected


def test_only_values_that_every_float_type_has_are_exact():
    assert [exact(x) for x in (0.1, 1e-6, 100.0, -0.5, np.inf)] == [None, None, None, -0.5, np.inf]


@pytest.mark.parametrize(
    ("name", "sign", "kinds"),
    [("square", ANY, "cc"), ("real", NONNEGATIVE, "cf"), ("exp", ANY, "cc"), ("not", ANY, "ii")],
)
def test_complex_numbers_and_integers_that_overflow_have_no_sign(name, sign, kinds):
    assert SCALARS[name].sign_of({}, [sign], kinds) == ANY


def test_signs_of_moduli_and_of_flags():
    assert SCALARS["abs"].sign_of({}, [ANY], "cf") == NONNEGATIVE
    assert SCALARS["convert_element_type"].sign_of({}, [NONNEGATIVE], "bi") == NONNEGATIVE


@pytest.mark.parametrize(
    ("name", "signs", "expected"),
    [
        ("exp", [ANY], POSITIVE),
        ("add", [NONNEGATIVE, POSITIVE], POSITIVE),
        ("add", [ANY, POSITIVE], ANY),
        ("mul", [POSITIVE, NONNEGATIVE], NONNEGATIVE),
        ("max", [ANY, NONNEGATIVE], NONNEGATIVE),
        ("sin", [POSITIVE], ANY),
    ],
)
def test_signs(name, signs, expected):
    assert SCALARS[name].sign_of({}, signs) == expected
