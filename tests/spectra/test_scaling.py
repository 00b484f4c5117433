# SPDX-License-Identifier: Apache-2.0
"""Powers of two: exact, of the right size, over the whole range and on every platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.spectra.scaling import power_of_two, smallest_resolved, widened, widened_product


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_is_a_power_of_two_near_the_largest_entry(dtype):
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    exponents = np.arange(info.minexp + 3, info.maxexp + 1)
    numbers = np.ldexp(rng.uniform(0.5, 1, exponents.shape), exponents).astype(dtype)
    numbers = np.append(numbers, info.max)
    found = np.asarray(jax.jit(jax.vmap(lambda x: power_of_two(jnp.stack([-x, x / 2]))))(numbers))
    assert (np.frexp(found)[0] == 0.5).all()
    quotients = np.asarray(jax.jit(jnp.divide)(numbers, found))
    assert ((quotients >= 2) & (quotients <= 8)).all()
    np.testing.assert_array_equal(quotients * found, numbers)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_zeros_and_what_is_not_finite(dtype):
    assert power_of_two(jnp.zeros(3, dtype)) == power_of_two(jnp.zeros(0, dtype)) == 1
    for wrong in (jnp.nan, jnp.inf):
        numbers = jnp.array([wrong, 1], dtype)
        assert not jnp.all(jnp.isfinite(numbers / power_of_two(numbers)))
    assert jax.grad(lambda x: jnp.sum(x / power_of_two(x)))(jnp.array([4.0])) == 1


def test_lowers_for_accelerators():
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    exported = jax.export.export(jax.jit(power_of_two), platforms=["cuda", "tpu"])(shape)
    assert exported.platforms == ("cuda", "tpu")


def test_widens_real_numbers_only():
    for dtype in (jnp.bfloat16, jnp.float16, jnp.int8, jnp.uint32):
        assert widened("matrix", jnp.ones(2, dtype)).dtype == jnp.float32
    assert widened("matrix", jnp.ones(2)).dtype == jnp.float64
    with pytest.raises(ValueError, match="matrix must hold real numbers, got complex64"):
        widened("matrix", jnp.ones(2, jnp.complex64))
    with pytest.raises(ValueError, match="real floating-point numbers, got int32"):
        widened_product(lambda v: v, jnp.ones(2, jnp.int32))
    with pytest.raises(ValueError, match="at least one element"):
        widened_product(lambda v: v, jnp.ones(0))


def test_products_still_see_their_own_dtype():
    seen = []

    def matvec(v):
        seen.append(v.dtype)
        return v

    product, like = widened_product(matvec, jnp.ones(2, jnp.bfloat16))
    assert product(like).dtype == like.dtype == jnp.float32
    assert seen == [jnp.bfloat16]


def test_half_precision_keeps_its_subnormal_numbers():
    assert smallest_resolved(jnp.float16) == pytest.approx(2.0**-24 / 2.0**-10)
    assert smallest_resolved(jnp.float32) == 2.0**-126 / 2.0**-23
    assert smallest_resolved(jnp.bfloat16) == 2.0**-126 / 2.0**-7
