# SPDX-License-Identifier: Apache-2.0
"""Kernels at integer inputs, through complex numbers, of empty arrays, and of other outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plprune.kernels import (
    leaf_kernels,
    node_kernels,
    projected_kernel,
    tangent_kernel,
    traced_kernel,
)
from plprune.nodes import find_nodes
from plprune.operators import tangent_kernel_product
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")
METHODS = ("auto", "layerwise", "contraction")


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


WEIGHTS = {"w": normal(5, 8), "b": normal(8), "o": normal(8, 3), "e": normal(6, 8)}
KERNEL = {"k": normal(3, 3, 1, 4), "o": normal(4, 3)}


def convolved(p, x):
    dimensions = ("NHWC", "HWIO", "NHWC")
    image = x[..., None].astype(p["k"].dtype)
    h = lax.conv_general_dilated(image, p["k"], (1, 1), "SAME", dimension_numbers=dimensions)
    return jnp.tanh(h).mean((1, 2)) @ p["o"]


MODELS = {
    "dense": (lambda p, x: jnp.tanh(x[:, 0] @ p["w"] + p["b"]) @ p["o"], WEIGHTS),
    "dense on positions": (lambda p, x: jnp.tanh(x @ p["w"]).sum(1) @ p["o"], WEIGHTS),
    "weight on the left": (lambda p, x: jnp.einsum("ih,bsi->bh", p["w"], x) @ p["o"], WEIGHTS),
    "convolution": (convolved, KERNEL),
    "lookup": (lambda p, x: jnp.tanh(p["e"][x.astype(int)]).mean((1, 2)) @ p["o"], WEIGHTS),
    "lookup of one row, mapped": (
        lambda p, x: jax.vmap(lambda v: jnp.tanh(p["e"][v[0, 0].astype(int)]) @ p["o"])(x),
        WEIGHTS,
    ),
    "lookup of a table that is multiplied too": (
        lambda p, x: jnp.tanh(p["e"][x[:, 0].astype(int)].mean(1) + x[:, 1] @ p["e"][:5]) @ p["o"],
        WEIGHTS,
    ),
    "lookup and dense": (
        lambda p, x: jnp.tanh(p["e"][x[:, 0].astype(int)].mean(1) + x[:, 1] @ p["w"]) @ p["o"],
        WEIGHTS,
    ),
    "one-hot": (lambda p, x: (x[..., None] == jnp.arange(6)).sum(1) @ p["e"] @ p["o"], WEIGHTS),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, jnp.uint8) for name in MODELS]
    + [("dense", jnp.bool_), ("dense", jnp.int32), ("lookup", jnp.int32)],
)
def test_integer_inputs_have_the_kernel_of_their_values(name, dtype):
    apply, params = MODELS[name]
    step = 1 if "lookup" in name or "one-hot" in name else 40  # 200 times 200 is no uint8.
    inputs = jnp.asarray(step * np.random.default_rng(3).integers(0, 6, (4, 2, 5))).astype(dtype)
    expected = problems.reference_kernel(apply, params, inputs)

    @jax.jit
    def kernels(params):
        whole = [tangent_kernel(apply, params, inputs, method=m) for m in METHODS]
        traced = traced_kernel(apply, params, inputs)
        return whole, traced, leaf_kernels(apply, params, inputs, method="layerwise")

    whole, traced, leaves = kernels(params)
    tolerance = {"rtol": 1e-10, "atol": 1e-10 * np.abs(expected).max()}
    for kernel in (*whole, sum(jax.tree.leaves(leaves))):
        np.testing.assert_allclose(kernel, expected, **tolerance)
    np.testing.assert_allclose(traced, np.einsum("brcr->bc", expected), **tolerance)


@pytest.mark.parametrize("mode", ["clip", "fill"])
def test_small_integers_look_up_large_tables(mode):
    def apply(p, x):
        return jnp.tanh(jnp.take(p["e"], x, axis=0, mode=mode, fill_value=0)).mean(1) @ p["o"]

    params = {"e": normal(300, 3), "o": normal(3, 2)}
    inputs = jnp.asarray([[0, 1, 127], [1, 1, 2]], jnp.int8)
    # Of wide integers: XLA's unoptimised scatter wraps the number of rows to eight bits.
    expected = problems.reference_kernel(apply, params, inputs.astype(int))
    kernel = tangent_kernel(apply, params, inputs, method="layerwise")
    np.testing.assert_allclose(kernel, expected, rtol=1e-12)


PAIR = {"a": normal(4, 5), "b": normal(5, 2, seed=1)}
COMPLEX = {
    "weights": lambda p, x: jnp.real(x @ lax.complex(p["a"], 2 * p["a"])) @ p["b"],
    "inputs": lambda p, x: jnp.real((x + 1j * x) @ p["a"]) @ p["b"],
    "phases": lambda p, x: jnp.abs(jnp.exp(1j * (x @ p["a"])) @ p["b"]),
    "Fourier transform of weights": lambda p, x: (
        jnp.fft.irfft(jnp.fft.rfft(x @ p["a"]), 5) @ p["b"]
    ),
    "inside of a scan": lambda p, x: (
        lax.scan(lambda c, _: (jnp.real(jnp.exp(1j * c)), None), x @ p["a"], None, 2)[0] @ p["b"]
    ),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_on_the_way(name):
    apply, inputs = COMPLEX[name], normal(3, 4, seed=2)
    expected = problems.reference_kernel(apply, PAIR, inputs)
    for method in METHODS:
        kernel = tangent_kernel(apply, PAIR, inputs, method=method)
        np.testing.assert_allclose(kernel, expected, rtol=1e-10, atol=1e-12)


def test_leaves_that_are_not_real_are_held_constant():
    params = {"w": normal(4, 3), "phase": jnp.exp(1j * normal(3, seed=1))}
    inputs = normal(3, 4, seed=2)

    def apply(p, x):
        return jnp.real((x @ p["w"]) * p["phase"])

    def of_weights(w, x):
        return apply(params | {"w": w}, x)

    expected = problems.reference_kernel(of_weights, params["w"], inputs)
    for method in METHODS:
        kernel = tangent_kernel(apply, params, inputs, method=method)
        np.testing.assert_allclose(kernel, expected, rtol=1e-12)


def test_a_weight_cast_to_integers_has_no_derivative():
    def apply(p, x):
        return x @ p["w"].astype(int).astype(float) + x @ jnp.tanh(p["w"])

    params, inputs = {"w": 3 * normal(4, 2)}, normal(3, 4, seed=2)
    expected = problems.reference_kernel(apply, params, inputs)
    for method in METHODS:
        kernel = tangent_kernel(apply, params, inputs, method=method)
        np.testing.assert_allclose(kernel, expected, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_without_inputs_keeps_its_bias(method):
    params = {"w": jnp.zeros((0, 3)), "b": normal(3), "o": normal(3, 2)}

    def apply(p, x):
        return jnp.tanh(x @ p["w"] + p["b"]) @ p["o"]

    inputs = jnp.zeros((4, 0))
    kernel = tangent_kernel(apply, params, inputs, method=method)
    hidden = np.tanh(params["b"])
    slope = np.asarray(params["o"]) * (1 - hidden**2)[:, None]
    expected = slope.T @ slope + np.eye(2) * (hidden @ hidden)
    np.testing.assert_allclose(
        kernel, np.broadcast_to(expected[None, :, None], kernel.shape), rtol=1e-12
    )


def dense(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["o"]


@pytest.mark.parametrize("method", ["layerwise", "contraction"])
@pytest.mark.parametrize(
    ("apply", "rows", "columns", "shape"),
    [
        (dense, 0, None, (0, 3, 0, 3)),
        (dense, 0, 2, (0, 3, 2, 3)),
        (dense, 2, 0, (2, 3, 0, 3)),
        (lambda p, x: dense(p, x)[:, :0], 2, None, (2, 0, 2, 0)),
    ],
    ids=["no examples", "no rows", "no columns", "no outputs"],
)
def test_kernels_without_entries(apply, rows, columns, shape, method):
    inputs, other = jnp.ones((rows, 5)), None if columns is None else jnp.ones((columns, 5))
    assert tangent_kernel(apply, WEIGHTS, inputs, other, method=method).shape == shape
    traced = traced_kernel(apply, WEIGHTS, inputs, other, method=method)
    np.testing.assert_array_equal(traced, np.zeros(shape[::2]))
    leaves = leaf_kernels(apply, WEIGHTS, inputs, other, method=method)
    assert {k.shape for k in leaves.values()} == {shape}
    projected = projected_kernel(apply, WEIGHTS, inputs, jnp.ones((shape[1], 2)), other)
    assert projected.shape == (shape[0], 2, shape[2], 2)
    groups = find_nodes(dense, WEIGHTS, jnp.ones((2, 5)))
    nodes, rest = node_kernels(apply, WEIGHTS, inputs, groups, other)
    assert rest.shape == shape
    assert nodes["w"].shape == (8, *shape)


@pytest.mark.parametrize(
    "apply",
    [lambda p, x: (x @ p["w"], x), lambda p, x: {"y": x @ p["w"]}, lambda *_: None],
    ids=["tuple", "dict", "None"],
)
def test_outputs_that_are_no_array_are_refused(apply):
    for function in (tangent_kernel, traced_kernel, leaf_kernels):
        with pytest.raises(ValueError, match=r"apply must return one array .*, got the tree"):
            function(apply, WEIGHTS, jnp.ones((3, 5)))
    with pytest.raises(ValueError, match="apply must return one array"):
        tangent_kernel_product(apply, WEIGHTS, jnp.ones((3, 5)))(jnp.ones((3, 8)))
