# SPDX-License-Identifier: Apache-2.0
"""MLPs against matrix products, and the variance their initialisation promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.functional import functional, stateless
from plprune.models import MLP

pytestmark = pytest.mark.usefixtures("models_broadcast")


def model(*sizes, **options):
    return functional(MLP(*sizes, **options, rngs=nnx.Rngs(0)))


def test_outputs_equal_matrix_products(key, fill):
    net, params, _ = fill(lambda rngs: MLP(6, (5, 4), 3, activation="tanh", rngs=rngs))
    x = np.asarray(jax.random.normal(key, (7, 2, 3), jnp.float32))
    hidden = x.reshape(7, 6)
    for layer in ("hidden_0", "hidden_1"):
        hidden = np.tanh(hidden @ params[layer]["kernel"] + params[layer]["bias"])
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    chex.assert_trees_all_close(stateless(net)(params, x), expected, rtol=1e-5, atol=1e-6)


def test_widths_and_depth_are_arguments(shapes_of):
    shapes = shapes_of(lambda rngs: MLP(4, (8, 7, 6), 2, rngs=rngs))
    assert shapes["hidden_1"] == {"kernel": (8, 7), "bias": (7,)}
    assert shapes["output"] == {"kernel": (6, 2), "bias": (2,)}
    assert shapes_of(lambda rngs: MLP(4, (), 2, rngs=rngs)).keys() == {"output"}
    bare = shapes_of(lambda rngs: MLP(4, (3,), 2, use_bias=False, rngs=rngs))
    assert bare["output"].keys() == {"kernel"}


@pytest.mark.parametrize("parameterization", ["standard", "ntk"])
@pytest.mark.parametrize(("activation", "gain"), [("relu", 2), ("tanh", 1)])
def test_preactivations_start_with_the_stated_variance(parameterization, activation, gain):
    net = model(400, (2000,), 1, activation=activation, parameterization=parameterization)
    width, hidden = 2000, net.params["hidden_0"]
    weights = hidden["kernel"].var() * (gain / 400 if parameterization == "ntk" else 1)
    np.testing.assert_allclose(weights, gain / 400, rtol=0.01)
    last = net.params["output"]["kernel"].var() * (1 / width if parameterization == "ntk" else 1)
    np.testing.assert_allclose(last, 1 / width, rtol=0.2)
    assert not hidden["bias"].any()


def test_parameterizations_start_as_the_same_function(key):
    x = jax.random.normal(key, (5, 6))
    nets = [model(6, (8, 8), 3, parameterization=name) for name in ("standard", "ntk")]
    outputs = [net.apply(net.params, {}, x) for net in nets]
    chex.assert_trees_all_close(*outputs, rtol=1e-5, atol=1e-6)
    assert not jnp.allclose(nets[0].params["output"]["kernel"], nets[1].params["output"]["kernel"])


def test_another_seed_draws_another_model():
    first, second = (MLP(4, (3,), 2, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    assert not jnp.allclose(first.hidden_0.kernel[...], second.hidden_0.kernel[...])


def test_rejects_bad_arguments():
    with pytest.raises(ValueError, match="out_features must be at least 1, got 0"):
        model(4, (0,), 2)
    with pytest.raises(ValueError, match=r"activation must be one of relu, .* got 'rleu'"):
        model(4, (2,), 2, activation="rleu")
    with pytest.raises(ValueError, match="parameterization must be one of standard, ntk; got 'mu'"):
        model(4, (2,), 2, parameterization="mu")
