# SPDX-License-Identifier: Apache-2.0
"""The condition number of linear models, of the mean square loss, and of many seeds at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import condition_number, pl_constant
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
DTYPES = [jnp.float32, jnp.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_condition_number_of_a_linear_model(key, dtype):
    params, inputs, spectrum = problems.linear_problem(key, dtype)
    kappa = condition_number(problems.linear, params, inputs)
    assert kappa.resolved
    assert abs(kappa.value - spectrum.max() / spectrum.min()) <= kappa.error <= 0.01 * kappa.value


def test_condition_number_with_the_mean_square_loss_is_the_kernel_s(key):
    params, inputs, spectrum = problems.linear_problem(key, jnp.float64)

    def objective(p, x):
        return jnp.sum(problems.linear(p, x) ** 2) / (2 * len(x))

    kappa = condition_number(
        problems.linear, params, inputs, objective=objective, batch=inputs, key=key
    )
    np.testing.assert_allclose(kappa.value, spectrum.max() / spectrum.min(), rtol=1e-6)


def test_vmap_over_seeds_matches_loop(key):
    _, inputs, _ = problems.linear_problem(key, jnp.float64)

    def measure(k):
        params = problems.mlp_params(k, (7, 20, 2))
        return condition_number(problems.mlp, params, inputs), pl_constant(
            problems.mlp, params, inputs
        )

    keys = jax.random.split(key, 3)
    looped = [jax.jit(measure)(k) for k in keys]
    batched = jax.jit(jax.vmap(measure))(keys)
    for i, single in enumerate(looped):
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(batched), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-3)
