# SPDX-License-Identifier: Apache-2.0
"""Rows spread over the devices of two processes equal the kernel of one."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
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


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_two_processes_equal_the_kernel_of_one(address):
    def start(process):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(process)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    processes = [start(0), start(1)]
    try:
        outputs = [p.communicate(timeout=120) for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-3000:]
        assert out.strip().endswith("equal")
