# SPDX-License-Identifier: Apache-2.0
"""Values of constants are known as they are stored, whatever their size."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from plprune.graph.shrinking.known import stored
from plprune.nodes import find_nodes, mask, resize, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
DRAWS = np.random.default_rng(0)
PARAMS = {name: jnp.asarray(DRAWS.normal(size=shape)) for name, shape in {"a": (4, 7)}.items()}
INPUTS = jnp.asarray(DRAWS.normal(size=(5, 4)))
CLIPS = {
    "clip": lambda h, low, high: jnp.clip(h, low, high),
    "clamp": lambda h, low, high: lax.clamp(low, h, high),
    "least of the largest": lambda h, low, high: jnp.minimum(jnp.maximum(h, low), high),
    "where": lambda h, low, high: jnp.where(h < low, low, jnp.where(h > high, high, h)),
}


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(sorted(CLIPS)), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_features_may_go_where_zero_lies_between_the_bounds(name, low, width):
    def apply(p, x):
        return CLIPS[name](x @ p["a"], low, low + width).sum(1)

    groups = find_nodes(apply, PARAMS, INPUTS, mode="baked")
    between = low <= 0 <= low + width
    assert groups["a"].prunable == between, groups["a"].reason
    if between:
        keep = {"a": np.array([True, False] * 3 + [True])}
        small = resize(apply, groups, keep)(shrink(PARAMS, groups, keep), INPUTS)
        masked = apply(mask(PARAMS, groups, keep), INPUTS)
        np.testing.assert_allclose(small, masked, rtol=1e-9)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(2**53 + 1), None),
        (np.int32(7), 7.0),
        (np.float64(1e300), 1e300),
        (np.float64(np.nan), None),
        (np.float32(-np.inf), -np.inf),
        (np.bool_(True), 1.0),
    ],
)
def test_numbers_that_a_float_holds_are_known(number, value):
    assert stored(number) == value
