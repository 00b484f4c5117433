# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel against closed forms and against whole Jacobians in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.kernels import projected_kernel, tangent_kernel
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")


@pytest.fixture
def inputs(key):
    return jax.random.normal(key, (5, 4))


@pytest.fixture
def params(key):
    return problems.mlp_params(key, (4, 6, 3))


def test_linear_model_gives_the_gram_matrix(inputs):
    kernel = tangent_kernel(problems.linear, {"w": jnp.ones((4, 3))}, inputs)
    np.testing.assert_allclose(kernel, problems.linear_kernel(inputs, inputs, 3), atol=1e-14)


def test_two_weight_network(inputs):
    x = inputs[:, :1]
    kernel = tangent_kernel(problems.product, {"a": jnp.array(2.0), "b": jnp.array(3.0)}, x)
    np.testing.assert_allclose(kernel[:, 0, :, 0], 13 * np.outer(x, x), rtol=1e-14)


@pytest.mark.parametrize("tile", [1, 2, 5, 9])
def test_tiles_do_not_change_the_kernel(params, inputs, tile):
    kernel = tangent_kernel(
        problems.mlp, params, inputs, inputs[:3], method="contraction", tile=tile
    )
    expected = problems.reference_kernel(problems.mlp, params, inputs, inputs[:3])
    np.testing.assert_allclose(kernel, expected, rtol=1e-12, atol=1e-13)


def test_projection_combines_outputs(params, inputs):
    kernel = problems.reference_kernel(problems.mlp, params, inputs)
    directions = jnp.array([[1.0, -1.0], [1.0, 0.0], [-1.0, 2.0]])
    projected = projected_kernel(problems.mlp, params, inputs, directions)
    expected = np.einsum("brds,rp,sq->bpdq", kernel, directions, directions)
    np.testing.assert_allclose(projected, expected, rtol=1e-11, atol=1e-12)
    single = projected_kernel(problems.mlp, params, inputs, directions[:, 0])
    np.testing.assert_allclose(single, expected[:, 0, :, 0], rtol=1e-11, atol=1e-12)


def test_outputs_are_flattened_and_scalars_count_as_one(params, inputs):
    cube = tangent_kernel(lambda p, x: problems.mlp(p, x).reshape(-1, 3, 1), params, inputs)
    np.testing.assert_allclose(cube, tangent_kernel(problems.mlp, params, inputs), rtol=1e-12)
    assert tangent_kernel(lambda p, x: problems.mlp(p, x)[:, 0], params, inputs).shape == (
        5,
        1,
        5,
        1,
    )


def test_integer_leaves_are_constants(params, inputs):
    def apply(tree, x):
        return problems.mlp(tree["p"], x) * tree["n"]

    kernel = tangent_kernel(apply, {"p": params, "n": jnp.array(2)}, inputs)
    np.testing.assert_allclose(kernel, 4 * tangent_kernel(problems.mlp, params, inputs), rtol=1e-12)


def test_no_parameters_give_zero(inputs):
    kernel = tangent_kernel(lambda _, x: x, {}, inputs)
    np.testing.assert_array_equal(kernel, np.zeros((5, 4, 5, 4)))


def test_rejects_bad_arguments(params, inputs):
    with pytest.raises(ValueError, match=r"method must be one of .*'fastest'"):
        tangent_kernel(problems.mlp, params, inputs, method="fastest")
    with pytest.raises(ValueError, match="tile must be at least 1, got 0"):
        tangent_kernel(problems.mlp, params, inputs, tile=0)
    with pytest.raises(ValueError, match="3 rows, got 2"):
        projected_kernel(problems.mlp, params, inputs, jnp.ones(2))


def test_bfloat16_parameters_are_raised(params, inputs):
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    kernel = tangent_kernel(problems.mlp, low, inputs.astype(jnp.float32))
    raised = jax.tree.map(lambda p: p.astype(jnp.float32), low)
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(
        kernel, tangent_kernel(problems.mlp, raised, inputs.astype(jnp.float32))
    )


def test_accelerators_are_asked_for_full_precision(params, inputs):
    """TF32 would spoil lambda_min, so no product may run at default precision."""
    text = str(jax.make_jaxpr(lambda p, x: tangent_kernel(problems.mlp, p, x))(params, inputs))
    products = text.count("dot_general[")
    assert products > 4
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


def test_vmap_over_seeds_and_gradients(inputs):
    keys = jax.random.split(jax.random.key(1), 2)
    seeds = jax.vmap(lambda k: problems.mlp_params(k, (4, 6, 3)))(keys)

    def entry(p):
        return tangent_kernel(problems.mlp, p, inputs, tile=2)

    batched = jax.jit(jax.vmap(entry))(seeds)
    single = jax.tree.map(lambda p: p[1], seeds)
    np.testing.assert_allclose(batched[1], jax.jit(entry)(single), rtol=1e-12)
    direction = jax.tree.map(jnp.ones_like, single)
    moved = [jax.tree.map(lambda p, d: p + s * d, single, direction) for s in (1e-6, -1e-6)]  # noqa: B023
    numeric = (jax.jit(entry)(moved[0]) - jax.jit(entry)(moved[1])).sum() / 2e-6
    gradient = jax.jit(jax.grad(lambda p: entry(p).sum()))(single)
    exact = sum(jnp.sum(g) for g in jax.tree.leaves(gradient))
    np.testing.assert_allclose(exact, numeric, rtol=1e-6)


@pytest.mark.parametrize(
    "mixes",
    [
        pytest.param(lambda p, x: (x - jnp.mean(x, axis=0)) @ p, id="batch-mean"),
        pytest.param(lambda p, x: jax.nn.softmax(x @ p, axis=0), id="softmax"),
        pytest.param(lambda p, x: jnp.cumsum(x @ p, axis=0), id="cumulative"),
        pytest.param(lambda p, x: (x @ x.T) @ (x @ p), id="attention-over-the-batch"),
        pytest.param(lambda p, x: (x @ p).T, id="transposed"),
    ],
)
def test_models_that_mix_examples_are_refused(mixes):
    with pytest.raises(ValueError, match="apply must treat examples independently"):
        tangent_kernel(mixes, jnp.ones((3, 3)), jnp.ones((3, 3)))


def test_rejects_bad_shapes(params, inputs):
    with pytest.raises(ValueError, match="share one leading batch axis"):
        tangent_kernel(lambda p, x: x[0] @ p, jnp.ones((4, 2)), (inputs, inputs[:2]))
    with pytest.raises(ValueError, match="other must hold examples like inputs"):
        tangent_kernel(problems.mlp, params, inputs, inputs[:, :3])
    with pytest.raises(ValueError, match="one output per example"):
        tangent_kernel(lambda p, x: problems.mlp(p, x)[:2], params, inputs)
    with pytest.raises(ValueError, match="real numbers, got int"):
        tangent_kernel(lambda p, x: jnp.argmax(problems.mlp(p, x), -1), params, inputs)
