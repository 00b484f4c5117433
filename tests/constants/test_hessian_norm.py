# SPDX-License-Identifier: Apache-2.0
"""Hessian and Jacobian norms against closed forms and dense Hessians; samples of balls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import hessian_norm, hessian_norms, jacobian_norm, seen_in_ball
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")


def quadratics(params, inputs):
    """Outputs x w'A w/2 and x w'B w/2: Hessians x A and x B, of norms 7 |x| and 3 |x|."""
    signs = jnp.array([[-7.0, 1.0, 2.0], [3.0, 0.0, -1.0]])
    return inputs * (signs @ params**2)[None] / 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_norms_see_either_sign_of_every_output(key, dtype):
    inputs = jnp.array([[1.0], [-2.0]], dtype)
    found = jax.jit(lambda p, x: hessian_norms(quadratics, p, x, key=key, tol=1e-6))(
        jnp.ones(3, dtype), inputs
    )
    assert found.resolved.all()
    assert found.value.shape == (2, 2)
    assert (np.abs(found.value - np.array([[7, 3], [14, 6]])) <= found.error + 1e-6).all()
    assert found.error.max() < 1e-3


def test_product_of_two_weights(key):
    """f = a b x has Hessian x [[0, 1], [1, 0]]."""
    params = {"a": jnp.array(0.3), "b": jnp.array(2.0)}
    found = hessian_norm(problems.product, params, np.array([[1.5], [-4.0]]), key=key)
    np.testing.assert_allclose(found.value, 4.0, rtol=1e-6)


def test_networks_agree_with_dense_hessians(key):
    params, inputs = problems.mlp_params(key, (3, 4, 2)), jax.random.normal(key, (3, 3))
    vector, unravel = jax.flatten_util.ravel_pytree(params)
    dense = jax.hessian(lambda v: problems.mlp(unravel(v), inputs))(vector)
    expected = np.abs(np.linalg.eigvalsh(dense)).max(axis=-1)
    found = hessian_norms(problems.mlp, params, inputs, key=key, tol=1e-4, tile=6)
    np.testing.assert_allclose(found.value, expected, rtol=1e-5)


def test_linear_models_do_not_bend(key):
    params, inputs = {"w": jnp.ones((3, 2))}, jax.random.normal(key, (4, 3))
    found = hessian_norm(problems.linear, params, inputs, key=key)
    assert found.resolved
    assert found.value == 0
    np.testing.assert_allclose(
        jacobian_norm(problems.linear, params, inputs).value, np.linalg.norm(inputs, 2)
    )


def test_not_a_number_is_not_resolved(key):
    found = hessian_norm(problems.product, {"a": 1.0, "b": jnp.nan}, jnp.ones((1, 1)), key=key)
    assert found.value == 0 or not np.isnan(found.value)
    bent = hessian_norm(lambda p, x: x * p**3, jnp.nan, jnp.ones((1, 1)), key=key)
    assert not bent.resolved
    assert np.isinf(bent.error)


def test_jacobian_norm_bounds_its_error(key):
    params, inputs = problems.mlp_params(key, (3, 4, 2)), jax.random.normal(key, (3, 3))
    kernel = problems.reference_kernel(problems.mlp, params, inputs).reshape(6, 6)
    found = jacobian_norm(problems.mlp, params, inputs)
    assert abs(found.value - np.linalg.eigvalsh(kernel)[-1] ** 0.5) <= found.error < 1e-6


def test_balls_are_seen_from_inside(key):
    """|w| on a ball of radius 1 around a point at distance 3 lies in [2, 4]."""
    center = {"a": jnp.array([3.0]), "b": jnp.zeros(2)}

    def size(params):
        return jnp.sqrt(jnp.sum(params["a"] ** 2) + jnp.sum(params["b"] ** 2))

    seen = seen_in_ball(size, center, 1.0, key=key, num_points=60)
    assert seen.values.shape == (61,)
    assert seen.values[0] == 3
    assert 2 <= seen.infimum_at_most < 2.7
    assert 3.3 < seen.supremum_at_least <= 4
    assert (seen_in_ball(size, center, 0.0, key=key, num_points=2).values == 3).all()


def test_rejects_bad_arguments(key):
    params, inputs = {"a": 1.0, "b": 2.0}, jnp.ones((1, 1))
    with pytest.raises(ValueError, match="tile must be at least 1, got 0"):
        hessian_norms(problems.product, params, inputs, key=key, tile=0)
    with pytest.raises(ValueError, match="must have parameters and outputs, got 0"):
        hessian_norm(lambda _, x: x, {}, inputs, key=key)
    with pytest.raises(ValueError, match=r"radius must not be negative, got -1\.0"):
        seen_in_ball(lambda p: p, jnp.ones(1), -1.0, key=key, num_points=1)
    with pytest.raises(ValueError, match="num_points must be at least 1, got 0"):
        seen_in_ball(lambda p: p, jnp.ones(1), 1.0, key=key, num_points=0)
