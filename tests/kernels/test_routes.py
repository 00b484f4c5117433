# SPDX-License-Identifier: Apache-2.0
"""The ways to contract a layer agree, and cost what is said of them."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.costs import flops
from plprune.kernels import tangent_kernel
from plprune.kernels.layerwise import layerwise_kernel
from plprune.kernels.problem import make_problem
from tests.kernels.models import MODELS, arrays, conv, images
from tests.problems import mlp, mlp_params, reference_kernel

pytestmark = pytest.mark.usefixtures("models_broadcast")


def pooled():
    """A grouped convolution whose channels the nonlinear head sees as one number each."""
    p = arrays((3, 3, 2, 4), (3, 3, 2, 4), (4,), (4, 3), (3, 3))

    def apply(p, x):
        x = jnp.tanh(conv(x, p[0]))
        x = jnp.max(jax.nn.relu(conv(x, p[1], feature_group_count=2) + p[2]), axis=(1, 2))
        return jnp.tanh(x @ p[3]) @ p[4]

    return apply, p, images(4, 5, 5, 2)


def test_every_route_gives_the_kernel():
    apply, params, inputs = pooled()
    expected = reference_kernel(apply, params, inputs)

    @jax.jit
    def kernels(p, x):
        problem = make_problem(apply, p, x, None, "auto", None)
        narrow = [term.narrow is not None for term in problem.taps.terms]
        assert narrow == [False, True, False, False]

        def routed(route, tile):
            routes = tuple(route if n else "gram" for n in narrow)
            return layerwise_kernel(problem._replace(routes=routes), tile)

        ways = [("shared", None), ("shared", 3), ("gram", None), ("jacobian", None)]
        return [routed(*way) for way in ways]

    for kernel in kernels(params, inputs):
        np.testing.assert_allclose(kernel, expected, rtol=1e-11, atol=1e-13)


def test_auto_takes_the_shared_sum_of_a_pooled_convolution():
    apply, params, inputs = pooled()
    routes = make_problem(apply, params, inputs, None, "auto", None).routes
    assert routes[1] == "shared"
    assert "shared" not in make_problem(apply, params, inputs, None, "layerwise", None).routes
    assert "shared" not in make_problem(*MODELS["mlp"](), None, "auto", None).routes


@pytest.mark.parametrize(
    ("size", "widths"), [(128, (784, 256, 256, 10)), (100, (400, 800, 4)), (64, (512, 512, 512, 2))]
)
def test_dense_layers_cost_inputs_and_squared_outputs_times_width(size, widths):
    """Operations grow as b^2 (d_in + c^2 d_out), not as b^2 c^2 d_in d_out."""
    params = mlp_params(jax.random.key(0), widths)
    counted = flops(lambda p, x: tangent_kernel(mlp, p, x), params, jnp.ones((size, widths[0])))
    layers, c = list(pairwise(widths)), widths[-1]
    products = size**2 * sum(m + 1 + c**2 * n for m, n in layers)
    forward = size * sum(m * n for m, n in layers)
    backward = size * c * sum(m * n for m, n in layers[1:-1])
    assert 1 < counted / (2 * (products + forward + backward)) < 1.03


def test_a_pooled_convolution_costs_inputs_plus_squared_outputs_per_channel():
    """Operations grow as b^2 d_out (d_in + c^2), not as b^2 c^2 d_in d_out."""
    params = arrays((3, 3, 8, 64), (64, 10))
    size, positions, inner, outer, c = 32, 36, 72, 64, 10

    def apply(p, x):
        return jnp.mean(jax.nn.relu(conv(x, p[0])), axis=(1, 2)) @ p[1]

    counted = flops(lambda p, x: tangent_kernel(apply, p, x), params, images(size, 6, 6, 8))
    products = size**2 * (outer * (inner + c**2) + outer + c**2 * c)
    # The forward pass, whose count leaves out the padding, and the sum over positions.
    once = 2 * size * positions * inner * outer
    assert 0.8 < counted / (2 * (products + once)) < 1.1
