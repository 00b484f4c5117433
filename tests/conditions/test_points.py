# SPDX-License-Identifier: Apache-2.0
"""Points of a run in half precision, and indices beyond the examples."""

import jax.numpy as jnp
import numpy as np
import pytest

from plprune.conditions import batch_losses, points_at

pytestmark = pytest.mark.usefixtures("models_broadcast")


def test_points_of_half_precision_parameters_are_taken_in_float32():
    x, end = jnp.full(3, 300.0, jnp.float16), jnp.full(3, 100.0, jnp.float16)
    found = points_at(lambda p: jnp.sum(p**2)[None], x, end)
    np.testing.assert_allclose(found.inner, [3 * 2 * 300 * 200])
    np.testing.assert_allclose(found.gap, [3 * (300**2 - 100**2)])


def test_an_index_beyond_the_examples_is_nan():
    found = batch_losses(jnp.arange(4.0), jnp.array([[0, 1], [3, 4]]))
    np.testing.assert_array_equal(found, [0.5, jnp.nan])
