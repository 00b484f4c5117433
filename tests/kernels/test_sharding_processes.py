# SPDX-License-Identifier: Apache-2.0
"""Rows spread over the devices of two processes equal the kernel of one."""

from devices import printed_by

PROGRAM = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import NamedSharding, PartitionSpec
from plprune.kernels import sharded_kernel, tangent_kernel
from tests.kernels.models import MODELS

apply, params, inputs = MODELS["mlp"]()
inputs = np.concatenate([inputs, -np.asarray(inputs)])
mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
assert mesh.devices.size == 2 and len(jax.local_devices()) == 1

def spread(array, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])

everywhere = [spread(np.asarray(p), PartitionSpec()) for p in params]
rows = spread(inputs, PartitionSpec("rows"))
kernel = jax.jit(lambda p, x: sharded_kernel(apply, p, x, mesh=mesh, axis="rows"))(everywhere, rows)
expected = jax.jit(lambda p, x: tangent_kernel(apply, p, x))(params, inputs)
(own,) = kernel.addressable_shards
assert own.data.shape[0] == 3, own.data.shape
np.testing.assert_allclose(own.data, expected[own.index], rtol=1e-11, atol=1e-13)
print("equal")
"""


def test_two_processes_equal_the_kernel_of_one():
    assert [lines.splitlines()[-1] for lines in printed_by(2, PROGRAM)] == ["equal", "equal"]
