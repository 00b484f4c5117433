# SPDX-License-Identifier: Apache-2.0
"""Ends on four devices of two processes are those of the whole kernel."""

from devices import printed_by

PROGRAM = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import plprune.constants.ends as ends
import plprune.spectra.sharded as sharded
from plprune.constants import matrix_free_ends, pl_constant
from plprune.kernels import tangent_kernel
from tests.problems import mlp, mlp_params

mesh = jax.make_mesh((2, 2), ("hosts", "chips"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
assert mesh.size == 4 and len(jax.local_devices()) == 2
params = jax.tree.map(np.asarray, mlp_params(jax.random.key(0), (9, 60, 4)))
inputs = np.random.default_rng(0).normal(size=(16, 9))
ends._SMALL_SHARDED, sharded._LEAST = 63, 8  # Two blocks of rows on every device.
kernel = np.asarray(tangent_kernel(mlp, params, inputs)).reshape(64, 64)
lowest, *_, highest = np.linalg.eigvalsh(kernel)
found = pl_constant(mlp, params, inputs, mesh=mesh)
assert found.resolved
np.testing.assert_allclose(found.value, lowest / 16, rtol=1e-5)
assert abs(found.value - lowest / 16) <= found.error + 1e-12

key = np.asarray(jax.random.PRNGKey(0))
found = matrix_free_ends(mlp, params, inputs, mesh=mesh, key=key, tol=1e-6)
assert found.lowest.resolved
np.testing.assert_allclose(found.lowest.value, lowest, rtol=1e-5)
np.testing.assert_allclose(found.highest.value, highest, rtol=1e-5)
print("equal")
"""


def test_four_devices_of_two_processes_find_the_ends():
    printed = printed_by(2, PROGRAM, devices=2)
    assert [lines.splitlines()[-1] for lines in printed] == ["equal", "equal"]
