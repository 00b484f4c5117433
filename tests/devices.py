# SPDX-License-Identifier: Apache-2.0
"""Programs on several devices and in several processes, which both begin with a process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_JOIN = """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def printed_on(count: int, program: str) -> str:
    """What a program prints on so many host devices; it fails the test where it fails."""
    (printed,) = _printed([_started(count, program)])
    return printed


def printed_by(processes: int, program: str, *, devices: int = 1) -> list[str]:
    """What each of several joined processes prints, with so many host devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    places = range(processes)
    return _printed(
        [_started(devices, _JOIN + program, address, processes, place) for place in places]
    )


def _started(devices, program, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def _printed(started):
    try:
        outputs = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [printed.strip() for printed, _ in outputs]
