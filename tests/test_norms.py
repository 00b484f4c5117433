# SPDX-License-Identifier: Apache-2.0
"""Norms over all of a dtype's range, against float64, and what must come through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.norms import raised_for, tree_norm, unit

NORM, UNIT, SLOPE = jax.jit(tree_norm), jax.jit(unit), jax.jit(jax.grad(tree_norm))
VALUES = np.array([3.0, -0.1, 0.0, 7.0, 1.5])


def tree(values, dtype):
    return {"a": jnp.asarray(values[:2], dtype), "b": jnp.asarray(values[2:], dtype).reshape(1, 3)}


def exact(values, dtype):
    """The values as the dtype holds them, in float64."""
    leaves = jax.tree.leaves(tree(values, dtype))
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves])


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(jnp.float32, 36), (jnp.bfloat16, 36), (jnp.float16, 3), (jnp.float64, 300)]),
    st.floats(-1, 1),
)
def test_norms_directions_and_slopes_are_right_at_every_scale(kind, where):
    dtype, decades = kind
    values = VALUES * 10.0 ** (decades * where)
    held = exact(values, dtype)
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    tolerance = 8 * jnp.finfo(wide).eps
    scale = np.abs(held).max()
    norm = scale * np.linalg.norm(held / scale)
    found, length = UNIT(tree(values, dtype))
    assert length.dtype == NORM(tree(values, dtype)).dtype == wide
    np.testing.assert_allclose([length, NORM(tree(values, dtype))], norm, rtol=tolerance)
    np.testing.assert_allclose(exact_of(found), held / scale / (norm / scale), rtol=tolerance)
    slope = SLOPE(tree(values, dtype))
    assert slope["a"].dtype == dtype
    rounding = max(tolerance, 2 * float(jnp.finfo(dtype).eps))
    np.testing.assert_allclose(exact_of(slope), held / scale / (norm / scale), rtol=rounding)


def exact_of(leaves):
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(leaves)])


@pytest.mark.parametrize("exponent", [-100, -1, 1, 100])
def test_norms_are_equivariant_under_powers_of_two(exponent):
    once, scaled = NORM(tree(VALUES, jnp.float32)), tree(VALUES * 2.0**exponent, jnp.float32)
    assert float(NORM(scaled)) == float(once) * 2.0**exponent


def test_zero_has_slope_zero_and_nothing_hides_what_is_not_finite():
    zero = tree(0 * VALUES, jnp.float32)
    assert not exact_of(SLOPE(zero)).any()
    assert not exact_of(UNIT(zero)[0]).any()
    for value in (np.nan, np.inf):
        spoilt = tree(np.where(VALUES == 7, value, VALUES), jnp.float16)
        np.testing.assert_equal(float(NORM(spoilt)), value)


def test_leaves_that_are_not_floating_count_for_nothing():
    mixed = {"n": jnp.arange(3), "k": jax.random.key(0), "z": jnp.array([3 + 4j], jnp.complex64)}
    assert float(tree_norm(mixed)) == 5
    assert float(tree_norm({})) == 0
    assert unit(mixed)[0]["n"] is mixed["n"]


def test_trees_are_raised_unless_the_function_insists_on_its_dtype():
    half = jnp.full(2, 300, jnp.float16)
    assert raised_for(jnp.sum, half)[0].dtype == jnp.float32

    def stubborn(x):
        return jax.lax.scan(lambda carry, _: (carry + x, None), half, length=2)[0]

    assert raised_for(stubborn, half)[0] is half
    assert raised_for(jnp.sum, half.astype(float))[0].dtype == jnp.float64
