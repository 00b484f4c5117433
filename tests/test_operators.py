# SPDX-License-Identifier: Apache-2.0
"""Products against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from plprune.operators import (
    flat,
    gauss_newton_product,
    hessian_product,
    jacobian_product,
    jacobian_transpose_product,
    mean_over_batches,
    tangent_kernel_product,
)
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
Y = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)))


@pytest.fixture(scope="module")
def params():
    return problems.mlp_params(jax.random.key(3), (4, 5, 3))


@pytest.fixture(scope="module")
def jacobian(params):
    vector, unravel = ravel_pytree(params)
    with jax.numpy_rank_promotion("allow"):
        return np.asarray(jax.jacrev(lambda v: problems.mlp(unravel(v), X).ravel())(vector))


def loss(outputs, targets):
    return jnp.mean(jnp.sum((outputs - targets) ** 2, axis=1)) / 2


def objective(params, batch):
    return loss(problems.mlp(params, batch[0]), batch[1])


def dense(matvec, like):
    return np.asarray(jax.jit(jax.vmap(flat(matvec, like), out_axes=1))(jnp.eye(like_size(like))))


def like_size(like):
    return ravel_pytree(like)[0].size


def test_jacobian_products(params, jacobian):
    push = jacobian_product(problems.mlp, params, X)
    np.testing.assert_allclose(dense(push, params), jacobian, atol=1e-13)
    pull = jacobian_transpose_product(problems.mlp, params, X)
    np.testing.assert_allclose(dense(pull, Y), jacobian.T, atol=1e-13)


def test_tangent_kernel_product(params, jacobian):
    matvec = tangent_kernel_product(problems.mlp, params, X)
    np.testing.assert_allclose(dense(matvec, Y), jacobian @ jacobian.T, atol=1e-12)


def test_hessian_product_of_a_quadratic_is_its_matrix(key):
    matrix = problems.symmetric(key, np.arange(-3.0, 5.0))
    matvec = hessian_product(problems.quadratic, jnp.ones(8), matrix)
    np.testing.assert_allclose(dense(matvec, jnp.ones(8)), matrix, atol=1e-13)


def test_gauss_newton_of_the_mean_square_loss(params, jacobian):
    matvec = gauss_newton_product(problems.mlp, loss, params, X, Y)
    np.testing.assert_allclose(dense(matvec, params), jacobian.T @ jacobian / 6, atol=1e-13)


def test_mean_over_batches_is_the_product_of_the_whole(params):
    batches = [(np.asarray(X[i : i + 2]), np.asarray(Y[i : i + 2])) for i in (0, 2, 4)]
    matvec = mean_over_batches(lambda batch: hessian_product(objective, params, batch), batches)
    whole = hessian_product(objective, params, (X, Y))
    vector = jax.tree.map(jnp.ones_like, params)
    for a, b in zip(
        jax.tree.leaves(jax.jit(matvec)(vector)), jax.tree.leaves(whole(vector)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_rejects_bad_arguments(params):
    with pytest.raises(ValueError, match="at least one batch"):
        mean_over_batches(lambda batch: hessian_product(objective, params, batch), [])
    with pytest.raises(ValueError, match="batch 1 differs"):
        mean_over_batches(lambda _: lambda v: v, [np.ones(3), np.ones(2)])
    with pytest.raises(ValueError, match="batch axis"):
        tangent_kernel_product(lambda p, x: jnp.sum(x @ p), jnp.ones(4), X)(Y)
