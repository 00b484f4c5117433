# SPDX-License-Identifier: Apache-2.0
"""Lipschitz constants at a point, on a path and in a ball, against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import lipschitz_constant
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
