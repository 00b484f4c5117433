# SPDX-License-Identifier: Apache-2.0
"""Ends of large kernels: never formed, by rows over devices; and what models would need."""

import os
import resource
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np

from benchmarks.large_models import MODELS
from benchmarks.problems import mlp
from plprune import costs
from plprune.constants import ends as kernel_ends
from plprune.constants import matrix_free_ends
from plprune.kernels import tangent_kernel
from plprune.spectra import extreme_eigenpairs

WIDTHS = (784, 256, 256, 10)
_SIZES = (1000, 5000)  # Examples; the dense truth is that of the first.
_SHARDED = (512, 2048)
_DEVICE_BYTES = 80e9
_EXAMPLES = {"Llama-3-8B, 512 tokens": 8}  # Else as many as make a million outputs.
_SHARE, _VECTORS, _COLUMNS = 1.28, 450, 4  # Measured below; see `matrix_free_ends`.


def net(params, x):
    """ReLU net."""
    for k in range(len(WIDTHS) - 2):
        x = jax.nn.relu(x @ params[f"w{k}"] + params[f"b{k}"])
    return x @ params[f"w{len(WIDTHS) - 2}"] + params[f"b{len(WIDTHS) - 2}"]


def problem(examples: int, dtype=np.float32):
    """The net's parameters and normal inputs; smaller numbers of examples are the first ones."""
    arrays = mlp(WIDTHS, examples)
    params = {name: a.astype(dtype) for name, a in arrays.items() if name[0] in "wb"}
    return params, arrays["x"].astype(dtype)


def main(repeats: int) -> int:
    """Print all tables."""
    return max(table(repeats) for table in TABLES.values())


def matrix_free(_: int, sizes: tuple[int, ...] = _SIZES) -> int:
    """Ends from products alone, at the first size beside the dense ones in float64."""
    _say("| outputs | lambda_min at most | proven at least | lambda_max | products | s | cpu s | "
         "peak MiB |")  # fmt: skip
    _say("|---|---|---|---|---|---|---|---|")
    for examples in sizes:
        params, x = problem(examples)
        start = time.perf_counter(), time.process_time()
        found = matrix_free_ends(net, params, x, key=jax.random.key(0))
        jax.block_until_ready(found)
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        low = found.lowest
        proven = f"{low.value - low.error:.1f}" if low.resolved else "nothing"
        _say(f"| {examples * WIDTHS[-1]:,} | {found.lowest_at_most:.2f} | {proven} | "
             f"{found.highest.value:.6g} | {found.num_products} | {wall:.0f} | {cpu:.0f} | "
             f"{_peak():.0f} |")  # fmt: skip
        if examples == sizes[0]:
            _compare(examples, found)
    return 0


def _compare(examples, found):
    with jax.enable_x64(True):
        params, x = problem(examples, np.float64)
        kernel = tangent_kernel(net, params, x)
        exact = extreme_eigenpairs(kernel.reshape(examples * WIDTHS[-1], -1))
        low, high = float(exact.smallest[0]), float(exact.largest)
    _say(f"| the same, dense in float64 | {low:.2f} | {low - float(exact.lower_error):.2f} | "
         f"{high:.6g} | | | | |")  # fmt: skip
    off = found.lowest_at_most / low - 1, found.highest.value / high - 1
    _say(f"| difference | {off[0]:.1e} | | {off[1]:.1e} | | | | |")


def sharded(_: int, sizes: tuple[int, ...] = _SHARDED, devices: int = 4) -> int:
    """Memory per device of kernel and ends by rows, as the compiler allots it, on host devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    program = f"from benchmarks.large_kernels import print_memory; print_memory({sizes})"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode


def print_memory(sizes: tuple[int, ...]) -> None:
    """The table of `sharded`, in a process that has the devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    _say(f"| outputs | the kernel, MB | per device of {mesh.size}, of the kernel |")
    _say("|---|---|---|")
    for examples in sizes:
        params, x = problem(examples)
        plan = kernel_ends._plan(net, params, x)
        options = {"plan": plan, "tol": 1e-6, "mesh": mesh, "independent": True}
        call = jax.jit(partial(kernel_ends._from_rows, net, **options))
        memory = call.lower(params, x).compile().memory_analysis()
        if memory is None:
            raise RuntimeError("this backend does not say what memory a program takes.")
        whole = 4 * (examples * WIDTHS[-1]) ** 2
        parts = (memory.temp_size_in_bytes, memory.argument_size_in_bytes,
                 memory.output_size_in_bytes)  # fmt: skip
        _say(f"| {examples * WIDTHS[-1]:,} | {whole / 1e6:,.0f} | {sum(parts) / whole:.3f} |")


def needs(_: int) -> int:
    """What large models would need, from their shapes alone."""
    _say("| model | parameters | a forward pass of an example, GFLOP | examples x outputs | K, TB "
         "| devices of 80 GB for K by rows | matrix-free, GB per device "
         "| 500 products, PFLOP |")  # fmt: skip
    _say("|---|---|---|---|---|---|---|---|")
    for name, model in MODELS.items():
        params = model.params(model.layers)
        count = costs.parameters(params)
        examples = _EXAMPLES.get(name, 10**6 // model.outputs)
        outputs = examples * model.outputs
        forward, kernel = _flops(model), 4 * outputs**2
        # The parameters, and a gradient and a tangent of each of the block's vectors.
        held = (1 + 2 * _COLUMNS) * costs.parameter_bytes(params) + 4 * _VECTORS * outputs + 2**29
        # Twice a forward pass, for a backward pass and for a tangent: thrice each with it.
        work = 500 * 6 * forward * examples
        _say(f"| {name} | {count / 1e6:,.1f} M | {forward / 1e9:,.1f} | {examples:,} x "
             f"{model.outputs:,} | {kernel / 1e12:.1f} | {_SHARE * kernel / _DEVICE_BYTES:,.0f} | "
             f"{held / 1e9:,.1f} | {work / 1e15:,.0f} |")  # fmt: skip
    return 0


def _flops(model):
    """Of one example; layers beyond the second cost what the second does."""
    first = costs.flops(model.apply, model.params(1), model.inputs)
    if model.layers == 1:
        return first
    second = costs.flops(model.apply, model.params(2), model.inputs)
    return first + (model.layers - 1) * (second - first)


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


TABLES = {"matrix_free": matrix_free, "sharded": sharded, "needs": needs}
