# SPDX-License-Identifier: Apache-2.0
"""Parts of the kernel: each equals the kernel of its own parameters, and they add up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.kernels import leaf_kernels, node_kernels, tangent_kernel
from plprune.types import Member, NodeGroup
from tests import problems
from tests.kernels.models import MODELS

pytestmark = pytest.mark.usefixtures("models_broadcast")


@pytest.mark.parametrize(
    "name", ["convolutions", "shared_layer", "jitted_and_unused", "dynamic_loop"]
)
def test_leaf_kernels_are_those_of_single_leaves(name):
    apply, params, inputs = MODELS[name]()
    kernels = jax.jit(lambda p, x: leaf_kernels(apply, p, x, tile=2))(params, inputs)

    @functools.partial(jax.jit, static_argnums=0)
    def alone(k, params):
        def apply_leaf(leaf, x):
            return apply([*params[:k], leaf, *params[k + 1 :]], x)

        return tangent_kernel(apply_leaf, params[k], inputs, method="contraction")

    for k in (0, len(params) - 1):
        np.testing.assert_allclose(kernels[k], alone(k, params), rtol=1e-10, atol=1e-13)
    whole = jax.jit(lambda p: tangent_kernel(apply, p, inputs))(params)
    np.testing.assert_allclose(sum(kernels), whole, rtol=1e-10, atol=1e-13)


def hidden_units(size, index=None):
    index = np.arange(size) if index is None else index
    producers = (Member("0.0", 1, index), Member("0.1", 0, index))
    return NodeGroup("hidden", int(index.max()) + 1, "neuron", (), producers, (), True, True, "")


def test_node_kernels_of_two_layers_scale_with_squared_gates(key):
    """u = v' tanh(Wx + b): gating unit i multiplies its part by the square of the gate."""
    (w, b), (v, _) = problems.mlp_params(key, (4, 6, 3))
    inputs = jax.random.normal(key, (3, 4))

    def apply(p, x):
        return jnp.tanh(x @ p[0][0] + p[0][1]) @ v

    group = {"hidden": hidden_units(6)}
    kernels, rest = jax.jit(lambda p: node_kernels(apply, p, inputs, group))([(w, b)])
    np.testing.assert_allclose(rest, 0, atol=1e-13)
    gates = jnp.linspace(0, 2, 6)
    gated = tangent_kernel(
        lambda p, x: (jnp.tanh(x @ p[0][0] + p[0][1]) * gates) @ v, [(w, b)], inputs
    )
    expected = jnp.einsum("g,gbcde->bcde", gates**2, kernels["hidden"])
    np.testing.assert_allclose(gated, expected, rtol=1e-11, atol=1e-13)


def test_nodes_of_several_positions_and_the_rest_add_up(key):
    params = problems.mlp_params(key, (4, 6, 3))
    inputs = jax.random.normal(key, (3, 4))
    pairs = {"hidden": hidden_units(6, np.array([0, 0, 1, 1, -1, -1]))}
    kernels, rest = node_kernels(problems.mlp, params, inputs, pairs, inputs[:2])
    whole = tangent_kernel(problems.mlp, params, inputs, inputs[:2])
    np.testing.assert_allclose(kernels["hidden"].sum(0) + rest, whole, rtol=1e-11)
    assert kernels["hidden"].shape == (2, 3, 3, 2, 3)


def test_rejects_unknown_leaves(key):
    params = problems.mlp_params(key, (4, 6, 3))
    group = hidden_units(6)._replace(producers=(Member("9.9", 0, np.arange(6)),))
    with pytest.raises(ValueError, match=r"'9\.9', not in params"):
        node_kernels(problems.mlp, params, jnp.ones((2, 4)), {"hidden": group})
