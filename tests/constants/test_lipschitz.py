# SPDX-License-Identifier: Apache-2.0
"""Lipschitz constants at a point, on a path and in a ball, against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import (
    lipschitz_constant,
    lipschitz_in_ball,
    lipschitz_on_path,
)
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
DTYPES = [jnp.float32, jnp.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spectrum", [[1.0, 2.0, 5.0], [-7.0, 0.0, 3.0], [2.0, 2.0, 2.0]])
def test_lipschitz_constant_of_a_quadratic(key, dtype, spectrum):
    matrix = problems.symmetric(key, np.repeat(spectrum, 4), dtype)
    estimate = lipschitz_constant(problems.quadratic, jnp.ones(12, dtype), matrix, key=key)
    assert estimate.resolved
    assert abs(estimate.value - np.abs(spectrum).max()) <= estimate.error + 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_objective_has_no_resolved_lipschitz_constant(key, dtype):
    estimate = lipschitz_constant(lambda w, _: jnp.sum(w), jnp.ones(5, dtype), None, key=key)
    assert not estimate.resolved
    assert estimate.value == 0


def test_path_and_ball_see_the_quartic_s_curvature(key):
    """w^4/12 has second derivative w^2."""

    def quartic(w, _):
        return jnp.sum(w**4) / 12

    path = lipschitz_on_path(
        quartic, jnp.array([-1.0]), jnp.array([3.0]), None, key=key, num_points=5
    )
    np.testing.assert_allclose(path.values, [1, 0, 1, 4, 9], atol=1e-9)
    assert path.lower_bound == path.values[-1]
    ball = lipschitz_in_ball(quartic, jnp.array([1.0]), 0.5, None, key=key, num_points=50)
    assert 1.5 <= ball.lower_bound <= 1.5**2 + 1e-9
    assert (ball.values >= 0.25 - 1e-9).all()
    with pytest.raises(ValueError, match="num_points must be at least 2, got 1"):
        lipschitz_on_path(quartic, jnp.ones(1), jnp.ones(1), None, key=key, num_points=1)
    with pytest.raises(ValueError, match=r"not be negative, got -1\.0"):
        lipschitz_in_ball(quartic, jnp.ones(1), -1.0, None, key=key, num_points=1)
    with pytest.raises(ValueError, match="num_points must be at least 1, got 0"):
        lipschitz_in_ball(quartic, jnp.ones(1), 1.0, None, key=key, num_points=0)
