# SPDX-License-Identifier: Apache-2.0
"""Axes that move take what is known of them along, axes that are stretched do not."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plprune.nodes import find_nodes, mask, resize, shrink

pytestmark = pytest.mark.usefixtures("models_broadcast")
PARAMS = {"w": jnp.sin(jnp.arange(12.0)).reshape(3, 4), "b": jnp.zeros(4)}
INPUTS = jnp.cos(jnp.arange(15.0)).reshape(5, 3)


@pytest.mark.parametrize(
    "positions",
    [
        pytest.param(lambda: lax.broadcasted_iota(jnp.int32, (5, 4), 1), id="all"),
        pytest.param(lambda: lax.broadcasted_iota(jnp.int32, (4, 5), 0).T, id="all, moved"),
        pytest.param(
            lambda: lax.broadcast_in_dim(
                lax.broadcasted_iota(jnp.int32, (5, 1), 1), (5, 4), (0, 1)
            ),
            id="the first, stretched",
        ),
    ],
)
def test_winners_are_compared_with_positions(positions):
    def apply(p, x):
        winner = lax.argmax(x @ p["w"] + p["b"], 1, jnp.int32)
        return (winner[:, None] == positions()).astype(float) @ jnp.ones((4, 2))

    groups = find_nodes(apply, PARAMS, INPUTS, mode="baked")
    (group,) = groups.prunable
    for node in range(4):
        keep = {group: np.arange(4) != node}
        small = resize(apply, groups, keep)(shrink(PARAMS, groups, keep), INPUTS)
        np.testing.assert_array_equal(small, apply(mask(PARAMS, groups, keep), INPUTS))
