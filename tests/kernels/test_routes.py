# SPDX-License-Identifier: Apache-2.0
"""The ways to contract a layer agree, and cost what is said of them."""

from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard

from plprune.costs import flops
from plprune.kernels import leaf_kernels, projected_kernel, tangent_kernel
from plprune.kernels.layerwise import layerwise_kernel
from plprune.kernels.problem import make_problem
from plprune.spectra import extreme_eigenvalues
from tests.kernels.models import MODELS, arrays, conv, images
from tests.problems import mlp, mlp_params, reference_kernel

METHODS = ("auto", "contraction")
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


def language_model(vocabulary):
    """Tokens looked up, mixed, and read by a head of its own at all positions."""
    p = arrays((vocabulary, 6), (6, 6), (6, vocabulary), (vocabulary,))
    tokens = jax.random.randint(jax.random.key(1), (5, 4), 0, vocabulary)

    def apply(p, x):
        return jnp.tanh(jnp.cumsum(p[0][x], axis=1) @ p[1]) @ p[2] + p[3]

    return apply, p, tokens


def test_a_linear_head_under_combinations_of_its_outputs_is_steady():
    apply, params, inputs = language_model(200)
    signs = jax.random.rademacher(jax.random.key(2), (800, 2), jnp.float64)

    def projected(p, x):
        return apply(p, x).reshape(len(x), -1) @ signs

    expected = reference_kernel(projected, params, inputs)

    @jax.jit
    def kernels(p, x):
        problem = make_problem(projected, p, x, None, "auto", None)
        assert [r == "steady" for r in problem.routes] == [False, False, True]
        summed = make_problem(projected, p, x, None, "auto", None, sums_outputs=True)
        assert summed.routes[-1] == "steady"
        leaves = leaf_kernels(projected, p, x)
        return [
            *(layerwise_kernel(problem, tile) for tile in (None, 2)),
            sum(leaves[1:], leaves[0]),
        ], layerwise_kernel(summed, 2)[:, 0, :, 0]

    whole, traced = kernels(params, inputs)
    for kernel in whole:
        np.testing.assert_allclose(kernel, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(traced, np.einsum("brdr->bd", expected), rtol=1e-11)


def test_derivatives_of_a_kernel_with_a_steady_head_are_those_of_any_other():
    apply, params, inputs = language_model(200)
    signs = jax.random.rademacher(jax.random.key(2), (800,), jnp.float64)
    weights = np.random.default_rng(0).normal(size=(5, 5))

    def value(p, method):
        kernel = projected_kernel(apply, p, inputs, signs, method=method)
        return jnp.sum(weights * kernel)

    steady, dense = (jax.jit(jax.grad(value), static_argnums=1)(params, m) for m in METHODS)
    for a, b in zip(steady, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def stacked_layers():
    """Of several positions, so that whole Jacobians of the layers are multiplied."""
    p = arrays(*[(48, 48)] * 6, (48, 1))

    def apply(p, x):
        for w in p[:-1]:
            x = jnp.tanh(x @ w)
        return jnp.sum(jnp.sin(x @ p[-1]), axis=1)

    return apply, p, jnp.asarray(np.random.default_rng(1).normal(size=(24, 6, 48)))


def test_blocks_of_layers_give_the_kernel_and_its_derivative_in_less_memory():
    apply, params, inputs = stacked_layers()

    def value(gates, blocks):
        def gated(p, x):
            return apply([g * w for g, w in zip(gates, p, strict=True)], x)

        kernel = tangent_kernel(gated, params, inputs, blocks=blocks)[:, 0, :, 0]
        return jnp.sum(jnp.sin(kernel))

    gates = jnp.ones(7)
    programs = [
        jax.jit(jax.value_and_grad(value), static_argnums=1).lower(gates, n).compile()
        for n in (1, 6)
    ]
    whole, parted = (program(gates) for program in programs)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    memory = [program.memory_analysis().temp_size_in_bytes for program in programs]
    assert memory[1] < memory[0] / 2, memory
    for blocks in (2, 100):
        kernel = jax.jit(
            lambda n: tangent_kernel(apply, params, inputs, blocks=n), static_argnums=0
        )
        np.testing.assert_allclose(kernel(blocks), kernel(1), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="blocks must be at least 1, got 0"):
        tangent_kernel(apply, params, inputs, blocks=0)


def test_complete_projections_give_the_ends_of_all_outputs_and_their_slopes():
    """Orthogonal combinations, as many as there are outputs, rotate the kernel and scale it."""
    apply, params, inputs = language_model(4)
    signs = jnp.asarray(hadamard(16), jnp.float64)  # Of 4 positions and 4 tokens.

    def ends(p, projected):
        if projected:
            kernel = projected_kernel(apply, p, inputs, signs) / len(signs)
        else:
            kernel = tangent_kernel(apply, p, inputs)
        smallest, largest = extreme_eigenvalues(kernel.reshape(80, 80), 5)
        return jnp.log(largest) - jnp.log(jnp.mean(smallest) + 1e-3)

    both = [jax.jit(jax.value_and_grad(ends), static_argnums=1)(params, p) for p in (True, False)]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_all_combinations_together_average_to_the_trace_over_outputs():
    apply, params, inputs = language_model(1)  # Four outputs.
    signs = jnp.asarray(list(product((-1.0, 1.0), repeat=4)))
    kernels = jax.jit(jax.vmap(lambda s: projected_kernel(apply, params, inputs, s)))(signs)
    expected = np.einsum("brdr->bd", reference_kernel(apply, params, inputs))
    np.testing.assert_allclose(kernels.mean(0), expected, rtol=1e-11)


def test_a_steady_head_needs_no_memory_for_the_vocabulary_of_each_example():
    """Of twice as large a vocabulary only the head's own share is new, not a multiple of it."""

    def temporary(vocabulary):
        apply, params, inputs = language_model(vocabulary)
        signs = jnp.ones(4 * vocabulary)
        inputs = jnp.tile(inputs, (40, 1))

        def gradient(p):
            return jax.grad(
                lambda q: projected_kernel(apply, [p[0], q, *p[2:]], inputs, signs).sum()
            )(p[1])

        return jax.jit(gradient).lower(params).compile().memory_analysis().temp_size_in_bytes

    growth = temporary(6000) - temporary(3000)
    assert growth < 3000 * 4 * 8 * 10  # 200 examples would take at least 200 of 4 positions.


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
