# SPDX-License-Identifier: Apache-2.0
"""Kernels, spectra, curvature, gating and shrunk training steps on one device in four minutes.

Needs this folder, plprune, jax and, for more peers, torch: ``python -m benchmarks accelerator``
from the folder above, or ``python benchmarks/accelerator.py [--sizes tiny] [--only TABLE]``. All
rows, which `benchmarks.workloads` defines, run in this process, the important ones first. A row is
skipped where it would outlast the budget, and what still runs when that ends is given up.
"""

import argparse
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

if not __package__:  # Run as a file: `benchmarks` lies in the folder above.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

import plprune
from benchmarks.workloads import (
    Work,
    cnn_kernel,
    dense_ends,
    gate_update,
    measured,
    module_curvature,
    module_kernel,
    net_curvature,
    net_kernel,
    shrunk_step,
    wide_kernel,
)
from plprune.models import CNN, MLP, VGG, ResNet

BUDGET = 225  # Seconds after the imports, which so have 15.
_TIMED = 2  # Seconds of timed calls of a line, at most.
_MLP, _WIDE, _STAGES = (784, 256, 256, 10), (784, 1024, 1024, 10), (2, 2, 2, 2)


def resnet20(rngs):
    """For images 32x32, 10 outputs."""
    return ResNet(rngs=rngs)


def resnet18(outputs, stem, rngs):
    """11 million parameters."""
    return ResNet(3, _STAGES, (64, 128, 256, 512), outputs, stem=stem, rngs=rngs)


def mlp(sizes, rngs):
    """Dense layers."""
    return MLP(sizes[0], sizes[1:-1], sizes[-1], rngs=rngs)


def cnn(rngs):
    """Two convolutions."""
    return CNN((28, 28, 1), (16, 32), rngs=rngs)


def one_block(rngs):
    """The least ResNet."""
    return ResNet(3, (1,), (4,), 2, rngs=rngs)


# The important rows first: what comes last is skipped first.
SIZES: dict[str, list[Work]] = {
    "full": [
        net_kernel(_MLP, 128, seconds=10),
        cnn_kernel(64, seconds=8),
        net_kernel((3072, 2048, 2048, 2048, 8), 16, seconds=8),
        measured(_MLP, 64, seconds=6),
        wide_kernel(_WIDE, 1024, 8192, seconds=5),
        wide_kernel(_WIDE, 4096, 8192, seconds=7),
        dense_ends(2048, "float64", seconds=6),
        dense_ends(2048, "float32", seconds=6),
        gate_update("MLP 784-256-256-10", partial(mlp, _MLP), (784,), 128, 64, seconds=8),
        gate_update("CNN 28x28, 16 and 32 channels", cnn, (28, 28, 1), 128, 64, seconds=10),
        module_kernel("ResNet-20", resnet20, 16, 32, 10, seconds=25),
        module_kernel("ResNet-18", partial(resnet18, 8, "imagenet"), 8, 224, 8, seconds=30),
        net_curvature(_WIDE, 512, seconds=3),
        shrunk_step("MLP 784-1024-1024-10", partial(mlp, _WIDE), (784,), 256, seconds=4),
        shrunk_step("VGG-16", lambda rngs: VGG(rngs=rngs), (32, 32, 3), 256, seconds=15),
        shrunk_step("ResNet-20", resnet20, (32, 32, 3), 256, seconds=15),
        module_curvature("ResNet-18", partial(resnet18, 10, "small"), 512, 32, seconds=15),
        dense_ends(4096, "float64", seconds=8),
        dense_ends(10240, "float64", seconds=20),
        module_kernel("ResNet-18", partial(resnet18, 10, "small"), 16, 32, 10, seconds=25),
        dense_ends(4096, "float32", seconds=7),
        dense_ends(10240, "float32", seconds=15),
    ],
    "tiny": [
        net_kernel((6, 5, 3), 4, seconds=1),
        cnn_kernel(2, seconds=1),
        measured((6, 5, 3), 4, seconds=1),
        wide_kernel((6, 5, 3), 8, 64, seconds=1),
        dense_ends(24, "float64", seconds=1),
        gate_update("MLP 6-8-3", partial(mlp, (6, 8, 3)), (6,), 8, 8, seconds=1),
        module_kernel("ResNet of one block", one_block, 3, 8, 2, seconds=1),
        net_curvature((6, 5, 3), 8, seconds=1),
        shrunk_step("MLP 6-8-3", partial(mlp, (6, 8, 3)), (6,), 8, seconds=1),
    ],
}


class Timing(NamedTuple):
    """One line of a row."""

    first: float  # Seconds, compilation included.
    median: float  # Seconds once compiled.
    value: np.ndarray | None


def main(
    repeats: int = 20, *, only: str | None = None, sizes: str | None = None, budget: float = BUDGET
) -> int:
    """Print the table; 1 if a line of plprune failed.

    Args:
      repeats: Timed calls of a line; fewer where they take long.
      only: The name of a table; None for all.
      sizes: "full" or "tiny"; None for full on an accelerator and tiny on a CPU.
      budget: Seconds after which nothing more is computed.
    """
    sizes = sizes or ("tiny" if jax.default_backend() == "cpu" else "full")
    works = [work for work in SIZES[sizes] if only in (None, work.table)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "torch") if find_spec(name))
    _say(
        f"{jax.devices()[0].device_kind}, {versions}, plprune {plprune.__version__}, {sizes} sizes"
    )
    _say("")
    _say("| work | by | first call, s | once compiled, ms | x first line | |")
    _say("|---|---|---|---|---|---|")
    return run(works, repeats, budget)


def run(works: Sequence[Work], repeats: int, budget: float) -> int:
    """Print the rows of some works; 1 if a line of plprune failed.

    Where the budget ends first, so does the process: a compilation can't be interrupted.
    """
    waiting, deadline, failed = list(works), time.perf_counter() + budget, False

    def give_up():
        _say_row(waiting[0].title, remark=f"given up: not ready when {budget:.0f} s were over")
        for work in waiting[1:]:
            _say_row(work.title, remark="skipped: no time left")
        os._exit(0)

    watch = threading.Timer(budget, give_up)
    watch.daemon = True
    watch.start()
    try:
        while waiting:
            failed |= _row(waiting[0], repeats, deadline)
            waiting.pop(0)
    finally:
        watch.cancel()
    return int(failed)


def _row(work, repeats, deadline):
    """Print the lines of one work; whether one of ours failed."""
    title, failed, first = work.title, False, None
    if (left := deadline - time.perf_counter()) < work.seconds:
        _say_row(title, remark=f"skipped: takes about {work.seconds:.0f} s, {left:.0f} s left")
        return False
    try:
        calls = work.lines()
    except Exception as error:
        _say_row(title, remark=_reason(error))
        return True
    for label, call in calls.items():
        left = deadline - time.perf_counter()
        if left < work.seconds / len(calls):
            _say_row(title, label, remark=f"skipped: {left:.0f} s left")
            continue
        try:
            timing = timed(call, repeats, keeps=work.compares and len(calls) > 1)
        except Exception as error:
            _say_row(title, label, remark=_reason(error))
            failed |= label.startswith("plprune")
            continue
        first = first or timing
        _say_row(title, label, timing, first, work.remark(timing.median) if first is timing else "")
        title = ""
    return failed


def timed(call: Callable[[], Any], repeats: int, *, keeps: bool) -> Timing:
    """Seconds of the first call and the median of later ones, of which the first goes untimed."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    first, seconds = time.perf_counter() - start, []
    value = _flat(result) if keeps else None
    del result  # Two results at once may not fit.
    while len(seconds) <= repeats and sum(seconds) < _TIMED:
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return Timing(first, median(seconds[1:] or seconds), value)


def _flat(result):
    """One vector on the host; what torch computed may lie on a device of its own."""
    leaves = [leaf.cpu() if hasattr(leaf, "cpu") else leaf for leaf in jax.tree.leaves(result)]
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _say_row(title, label="", timing=None, first=None, remark=""):
    if timing is None:
        _say(f"| {title} | {label} | | | | {remark} |")
        return
    if first is not timing and timing.value is not None and first.value is not None:
        scale = np.abs(first.value).max()
        remark = f"differs by {np.abs(timing.value - first.value).max() / scale:.0e}"
    milliseconds, ratio = 1e3 * timing.median, timing.median / first.median
    _say(f"| {title} | {label} | {timing.first:.2f} | {digits(milliseconds)} | {digits(ratio)} "
         f"| {remark} |")  # fmt: skip


def digits(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.{max(0, 2 - math.floor(math.log10(number)))}f}"


def _reason(error):
    return (
        f"failed: {type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
    )


def _say(line):
    """One line at once, for whoever reads along."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


TABLES = {
    name: partial(main, only=name) for name in dict.fromkeys(work.table for work in SIZES["full"])
}


def _command() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", choices=list(TABLES))
    parser.add_argument("--sizes", choices=list(SIZES))
    parser.add_argument("--budget", type=float, default=BUDGET)
    options = parser.parse_args()
    return main(**vars(options))


if __name__ == "__main__":
    sys.exit(_command())
