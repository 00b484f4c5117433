# SPDX-License-Identifier: Apache-2.0
"""Rows spread over four host devices equal the kernel of one."""

import jax
import jax.numpy as jnp
import pytest
from devices import printed_on

from plprune.kernels import sharded_kernel

PROGRAM = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from plprune.kernels import sharded_kernel, tangent_kernel
from tests.kernels.models import MODELS
mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
for name, method in (("convolutions", "auto"), ("scanned_layers", "contraction")):
    apply, params, inputs = MODELS[name]()
    inputs = jax.numpy.concatenate([inputs, -inputs, inputs[:2] + 1])
    function = lambda p, x: sharded_kernel(
        apply, p, x, mesh=mesh, axis="rows", method=method, tile=1)
    sharded = jax.jit(function)(params, inputs)
    assert len(sharded.sharding.device_set) == 4, sharded.sharding
    single = jax.jit(lambda p, x: tangent_kernel(apply, p, x))(params, inputs)
    np.testing.assert_allclose(sharded, single, rtol=1e-11, atol=1e-13)
"""


def test_equals_the_kernel_of_one_device():
    printed_on(4, PROGRAM)


def test_rejects_bad_arguments():
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match=r"\('rows',\), got 'columns'"):
        sharded_kernel(
            lambda p, x: x @ p, jnp.ones((2, 2)), jnp.ones((3, 2)), mesh=mesh, axis="columns"
        )
