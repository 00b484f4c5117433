# SPDX-License-Identifier: Apache-2.0
"""One small program from measuring to shrinking under the strictest settings of JAX and Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STRICT = {"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
PROCESSES = {
    "single": (STRICT | {"JAX_ENABLE_X64": "0", "JAX_DEBUG_NANS": "1"}, ["-O"], "1 False"),
    "double": (
        STRICT | {"JAX_ENABLE_X64": "1", "JAX_CHECK_TRACER_LEAKS": "1", "JAX_DEBUG_NANS": "1"},
        [],
        "4 True",
    ),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_measuring_gating_and_shrinking_pass_in_strict_environments(name):
    settings, options, expected = PROCESSES[name]
    devices = expected.split()[0]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    settings = settings | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *options, "-W", "error", ROOT / "tests" / "environments_program.py"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == expected.split()
