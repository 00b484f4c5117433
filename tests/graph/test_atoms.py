# SPDX-License-Identifier: Apache-2.0
"""The algebra of labels."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plprune.graph.atoms import UNIT, Atoms
from plprune.graph.known_values import UndefinedError, elementwise_value, exact
from plprune.graph.signs import ANY, NONNEGATIVE, POSITIVE, elementwise_sign


def because(text):
    return lambda: text


def test_unified_positions_have_the_same_atom():
    atoms = Atoms()
    a, b = atoms.fresh(3), atoms.fresh(3)
    atoms.unify(a, b, because("together"))
    np.testing.assert_array_equal(atoms.roots(a), atoms.roots(b))
    assert len(atoms.members(a)) == 3


def test_axes_of_size_one_are_units():
    assert Atoms().fresh(1).tolist() == [UNIT]


def test_products_go_with_any_factor_and_split_axes_are_products():
    atoms = Atoms()
    whole, rows, columns = atoms.fresh(6), atoms.fresh(2), atoms.fresh(3)
    atoms.unify(whole, atoms.product([rows, columns]), because("split"))
    assert set(atoms.removable(int(whole[4]))) == {rows[1], columns[1]}


def test_common_factors_cancel():
    atoms = Atoms()
    a, b, c = atoms.fresh(2), atoms.fresh(3), atoms.fresh(3)
    atoms.unify(atoms.product([a, b]), atoms.product([a, c]), because("cancel"))
    np.testing.assert_array_equal(atoms.roots(b), atoms.roots(c))


def test_a_product_equal_to_its_factor_pins_the_other():
    atoms = Atoms()
    a, b = atoms.fresh(2), atoms.fresh(3)
    atoms.unify(atoms.product([a, b]), np.repeat(a, 3), because("absorbed"))
    assert len(atoms.members(a)) == 2
    assert not atoms.members(b)
    assert atoms.pinned[b[0]]() == "absorbed"


def test_products_are_paired_as_the_axes_that_made_them():
    atoms = Atoms()
    batch, a, b = atoms.fresh(2), atoms.fresh(2), atoms.fresh(3)
    atoms.pin(batch, because("inputs"))
    features = atoms.product([a, b])
    group, taken = atoms.fresh(2), atoms.fresh(6)
    atoms.unify(atoms.product([batch, features]), atoms.product([group, taken]), because("conv"))
    assert not atoms.members(group)
    assert len(atoms.members(a)) == 2
    assert set(atoms.removable(int(taken[4]))) == {a[1], b[1]}


def test_pinned_factors_are_left_out_wherever_they_stand():
    atoms = Atoms()
    p, q, a, b = atoms.fresh(2), atoms.fresh(2), atoms.fresh(3), atoms.fresh(3)
    for pinned in (p, q):
        atoms.pin(pinned, because("batch"))
    left = np.array([atoms.product([p[:1], a[k : k + 1]])[0] for k in range(3)])
    right = np.array([atoms.product([b[k : k + 1], q[:1]])[0] for k in range(3)])
    atoms.unify(left, right, because("added"))
    np.testing.assert_array_equal(atoms.roots(a), atoms.roots(b))
    assert len(atoms.members(a)) == 3


def test_pins_spread_with_their_first_reason():
    atoms = Atoms()
    a, b, c = atoms.fresh(2), atoms.fresh(2), atoms.fresh(2)
    atoms.pin(a, because("first"))
    atoms.unify(a, b, because("second"))
    atoms.unify(c, b, because("third"))
    assert not atoms.members(c)
    assert atoms.pinned[atoms.root(int(c[0]))]() == "first"


def test_copies_are_independent():
    atoms = Atoms()
    a = atoms.fresh(2)
    twin = atoms.copy()
    twin.pin(a, because("tried"))
    assert len(atoms.members(a)) == 2


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
        ("select_n", [1.0, None, 0.0], 0.0),
        ("select_n", [None, 0.0, 0.0], 0.0),
    ],
)
def test_known_values(name, operands, expected):
    assert elementwise_value(name, {}, operands, np.dtype("float32")) == expected


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
        elementwise_value(name, {}, operands, np.dtype("float32"))


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
        ("complex", {}, [0.0, 0.0], "complex64", 0.0),
        ("complex", {}, [0.0, None], "complex64", None),
        ("imag", {}, [1.0], "float32", 0.0),
    ],
)
def test_known_values_are_those_of_the_dtype(name, params, operands, dtype, expected):
    assert elementwise_value(name, params, operands, jnp.dtype(dtype)) == expected


def test_only_values_that_every_float_type_has_are_exact():
    assert [exact(x) for x in (0.1, 1e-6, 100.0, -0.5, np.inf)] == [None, None, None, -0.5, np.inf]


@pytest.mark.parametrize(
    ("name", "sign", "kinds"),
    [("square", ANY, "cc"), ("real", NONNEGATIVE, "cf"), ("exp", ANY, "cc"), ("not", ANY, "ii")],
)
def test_complex_numbers_and_integers_that_overflow_have_no_sign(name, sign, kinds):
    assert elementwise_sign(name, {}, [sign], kinds) == ANY


def test_signs_of_moduli_and_of_flags():
    assert elementwise_sign("abs", {}, [ANY], "cf") == NONNEGATIVE
    assert elementwise_sign("convert_element_type", {}, [NONNEGATIVE], "bi") == NONNEGATIVE


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
    assert elementwise_sign(name, {}, signs) == expected
