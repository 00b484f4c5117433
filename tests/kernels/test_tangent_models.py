# SPDX-License-Identifier: Apache-2.0
"""Every method on every kind of model against whole Jacobians in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.kernels import tangent_kernel, traced_kernel
from tests.kernels.models import MODELS
from tests.problems import reference_kernel

pytestmark = pytest.mark.usefixtures("models_broadcast")


@functools.cache
def reference(name):
    apply, params, inputs = MODELS[name]()
    return reference_kernel(apply, params, inputs, forward=name == "dynamic_loop")


def close(kernel, expected, tolerance):
    error = np.abs(np.asarray(kernel, np.float64) - expected).max()
    assert error <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", MODELS)
def test_layerwise_and_auto_equal_the_reference(name):
    apply, params, inputs = MODELS[name]()

    @jax.jit
    def kernels(p, x):
        return (
            tangent_kernel(apply, p, x, method="layerwise"),
            tangent_kernel(apply, p, x, x[:2], tile=2),  # The second tile overlaps the first.
            traced_kernel(apply, p, x),
        )

    whole, part, summed = kernels(params, inputs)
    expected = reference(name)
    close(whole, expected, 1e-12)
    close(part, expected[:, :, :2], 1e-12)
    close(summed, np.einsum("brdr->bd", expected), 1e-12)


@pytest.mark.parametrize("name", ["convolutions", "attention", "unrolled_recurrence"])
def test_float32_is_close_to_float64(name):
    apply, params, inputs = MODELS[name]()

    def single(tree):
        is_real = lambda a: jnp.issubdtype(a.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda a: a.astype(jnp.float32) if is_real(a) else a, tree)

    kernel = jax.jit(lambda p, x: tangent_kernel(apply, p, x))(single(params), single(inputs))
    assert kernel.dtype == jnp.float32
    close(kernel, reference(name), 1e-5)


@pytest.mark.parametrize("name", ["dynamic_loop", "parameter_as_output", "low_rank"])
def test_contraction_equals_the_reference(name):
    apply, params, inputs = MODELS[name]()
    kernel = jax.jit(lambda p, x: tangent_kernel(apply, p, x, method="contraction", tile=2))
    close(kernel(params, inputs), reference(name), 1e-12)
