# SPDX-License-Identifier: Apache-2.0
"""Where the numbers of a run come from: versions, commit, device, and settings that change them."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

# What changes numbers, in the last bit or in all: jax's settings by their names.
SETTINGS = (
    "jax_enable_x64", "jax_explicit_x64_dtypes", "jax_default_matmul_precision",
    "jax_default_prng_impl", "jax_threefry_partitionable", "jax_random_seed_offset",
    "jax_softmax_custom_jvp", "jax_high_dynamic_range_gumbel", "jax_allow_f16_reductions",
    "jax_disable_jit", "jax_disable_most_optimizations", "jax_optimization_level",
    "jax_exec_time_optimization_effort",
)  # fmt: skip
HARMLESS = ("--xla_dump", "--xla_force_host_platform_device_count", "--xla_gpu_cuda_data_dir")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")


def provenance() -> dict[str, Any]:
    """Versions, commit and device of this process: the fields that need no configuration.

    `commit` ends in ``-dirty`` where tracked files were changed, and is None outside git.
    `numerics` is what changes the numbers of one config and one set of versions: see `numerics`.
    """
    import jax

    import plprune

    versions = {"python": ".".join(map(str, sys.version_info[:3])), "plprune": plprune.__version__}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    devices = jax.devices()
    device = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    if devices[0].platform == "cpu":
        device = f"cpu, {os.cpu_count()} cores{_cpu_name()}"
    return {
        "versions": versions,
        "commit": _commit(),
        "device": device,
        "numerics": numerics(),
    }


def numerics() -> dict[str, str]:
    """What changes the numbers of a program, in words: jax's settings, XLA's flags, the device.

    Settings that only check, log or cache are left out. The device is platform and kind; which
    processor a host has is no part of it.
    """
    import jax

    # As attributes they are those of this thread, which some of them do not have.
    every = jax.config.values
    found = {name: str(getattr(jax.config, name, every.get(name))) for name in SETTINGS}
    flags = [
        flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(HARMLESS)
    ]
    last = {flag.partition("=")[0]: flag for flag in flags}  # Of several, the last one holds.
    found["XLA_FLAGS"] = " ".join(sorted(last.values()))
    found["NVIDIA_TF32_OVERRIDE"] = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    (device,) = jax.device_put(np.float32(0)).devices()
    return found | {"device": f"{device.platform} {device.device_kind}"}


def _commit():
    # A copy installed inside somebody else's repository must not name that one's commit.
    if _git("ls-files", "--", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*arguments):
    command, here = ["git", *arguments], Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f" ({names[0]})" if names else ""
