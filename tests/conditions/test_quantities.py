# SPDX-License-Identifier: Apache-2.0
"""Ratios of recorded scalars on quadratics, at their ends, and against the kernel's spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.conditions import aiming_cosine, aiming_ratio, pl_ratio, quasar_ratio, smallest_beta
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")


def test_ratios_on_a_quadratic():
    """f = m/2 |x|^2: mu = m, quasar-convexity and aiming with theta = 2, angle 0."""
    m, x = 3.0, jnp.array([[1.0, 2.0], [-4.0, 0.5]])
    inner, value = m * jnp.sum(x**2, 1), m / 2 * jnp.sum(x**2, 1)
    norm, distance = m * jnp.linalg.norm(x, axis=1), jnp.linalg.norm(x, axis=1)
    np.testing.assert_allclose(pl_ratio(norm, value), m)
    np.testing.assert_allclose(aiming_ratio(inner, value), 2)
    np.testing.assert_allclose(quasar_ratio(inner, value), 2)
    np.testing.assert_allclose(aiming_cosine(inner, norm, distance), 1)
    # The relaxed condition with its own mu holds with equality at the minimum.
    for power in (1.0, 1.5):
        mu = pl_ratio(norm, value, power=power)
        np.testing.assert_allclose(norm**power, (2 * mu) ** (power / 2) * value, rtol=1e-12)


def test_ratios_where_they_say_nothing():
    zero, one = jnp.zeros(1), jnp.ones(1)
    assert pl_ratio(one, zero) == jnp.inf
    assert pl_ratio(one, -one) == jnp.inf
    assert aiming_ratio(one, zero) == jnp.inf
    assert quasar_ratio(one, -one) == jnp.inf
    assert aiming_cosine(zero, zero, one) == 0
    assert aiming_cosine(-2 * one, one, one) == -1
    with pytest.raises(ValueError, match=r"power must lie in \[1, 2\], got 3"):
        pl_ratio(one, one, power=3.0)


def test_ratios_neither_overflow_on_the_way_nor_in_half_precision():
    for dtype, size in ((jnp.float32, 1e25), (jnp.float32, 1e-25), (jnp.float16, 300.0)):
        norm, one = jnp.asarray([size], dtype), jnp.ones(1, dtype)
        excess = jnp.asarray([size], dtype)
        expected = float(norm[0]) ** 2 / (2 * float(excess[0]))
        np.testing.assert_allclose(pl_ratio(norm, excess), expected, rtol=1e-6)
        np.testing.assert_allclose(aiming_cosine(norm, norm, one), 1, rtol=1e-6)
        np.testing.assert_allclose(aiming_cosine(-norm, norm, 2 * one), -0.5, rtol=1e-6)
    # Compiled, two quotients may become one, whose divisor is out of range.
    for inner, norm, distance in ((0.0, 1e-25, 1e-25), (3e38, 2e19, 2e19), (1e30, 1e20, 1e20)):
        given = [jnp.full(1, number, jnp.float32) for number in (inner, norm, distance)]
        expected = [inner / norm / distance]
        for cosine in (aiming_cosine, jax.jit(aiming_cosine), jax.vmap(aiming_cosine)):
            np.testing.assert_allclose(cosine(*given), expected, rtol=1e-6)
    half = jnp.array([300.0], jnp.float16)
    np.testing.assert_allclose(smallest_beta(300.0, -half, half, half / 300), 300**2 + 300)


def test_pl_ratio_lies_between_the_ends_of_the_kernel(key):
    params, inputs, spectrum = problems.linear_problem(key, jnp.float64)

    def objective(p, batch):
        return jnp.sum((problems.linear(p, batch) - 1) ** 2) / (2 * len(batch))

    loss, gradient = jax.value_and_grad(objective)(params, inputs)
    ratio = pl_ratio(optax.tree.norm(gradient), loss)
    assert spectrum.min() / 4 <= ratio <= spectrum.max() / 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 6), st.integers(1, 6))
def test_pl_ratio_lies_within_the_kernel_s_spectrum(seed, num_outputs, num_parameters):
    """For any linear system and the sum loss: lambda_min(K) <= |grad L|^2/(2 L) <= lambda_max."""
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(num_outputs, num_parameters))
    weights, target = rng.normal(size=num_parameters), rng.normal(size=num_outputs)
    residual = jacobian @ weights - target
    gradient = jacobian.T @ residual
    ratio = pl_ratio(jnp.linalg.norm(gradient), jnp.asarray(residual @ residual / 2))
    spectrum = np.linalg.eigvalsh(jacobian @ jacobian.T)
    slack = 1e-12 * spectrum[-1]
    assert spectrum[0] - slack <= ratio <= spectrum[-1] + slack
