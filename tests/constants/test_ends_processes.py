# SPDX-License-Identifier: Apache-2.0
"""Ends on four devices of two processes equal those of one device."""

import os
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
import plprune.constants.ends as ends
import plprune.spectra.sharded as sharded
from plprune.constants import matrix_free_ends, pl_constant
from tests.problems import mlp, mlp_params

mesh = jax.make_mesh((2, 2), ("hosts", "chips"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
assert mesh.size == 4 and len(jax.local_devices()) == 2
params = jax.tree.map(np.asarray, mlp_params(jax.random.key(0), (9, 60, 4)))
inputs = np.random.default_rng(0).normal(size=(16, 9))
ends._SMALL_SHARDED, sharded._LEAST = 63, 8  # Two blocks of rows on every device.
found, expected = (pl_constant(mlp, params, inputs, mesh=m) for m in (mesh, None))
assert found.resolved and expected.resolved
np.testing.assert_allclose(found.value, expected.value, rtol=1e-5)
assert abs(found.value - expected.value) <= found.error + expected.error

options = {"key": np.asarray(jax.random.PRNGKey(0)), "tol": 1e-6}
found, expected = (
    matrix_free_ends(mlp, params, inputs, mesh=m, **options) for m in (mesh, None)
)
assert found.lowest.resolved and expected.lowest.resolved
np.testing.assert_allclose(found.lowest.value, expected.lowest.value, rtol=1e-5)
np.testing.assert_allclose(found.highest.value, expected.highest.value, rtol=1e-5)
print("equal")
"""


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_four_devices_of_two_processes_equal_one(address):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

    def start(process):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(process)],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    processes = [start(0), start(1)]
    try:
        outputs = [p.communicate(timeout=500) for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-3000:]
        assert out.strip().endswith("equal"), out
