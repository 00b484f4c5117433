# SPDX-License-Identifier: Apache-2.0
"""Start-up: importing plprune against importing jax, and the help against tyro's own import."""

import subprocess
import sys
import time
from statistics import median

from benchmarks.environments import ROOT

JAX = ["-c", "import jax, optax"]
FIRST_CALL = "from plprune import condition_number, find_nodes, pl_gating, tangent_kernel"
ROWS = [
    ("import plprune", ["-c", "import plprune"], JAX, 1.15),
    # Names are imported when they are first used: this is what a first call then waits for.
    ("its main functions too", ["-c", FIRST_CALL], JAX, 1.15),
    (
        "python -m experiments --help",
        ["-m", "experiments", "--help"],
        ["-c", "import tyro, rich"],
        1.5,
    ),
]


def main(repeats: int) -> int:
    """Print the ratio of each pair's medians and its target; the two take turns."""
    print(f"{'':32}{'median':>10}{'beside':>10}{'ratio':>8}{'target':>8}")  # noqa: T201
    for label, ours, beside, target in ROWS:
        times = [(_seconds(ours), _seconds(beside)) for _ in range(repeats + 1)][1:]
        mine, theirs = (median(column) for column in zip(*times, strict=True))
        line = f"{label:32}{mine:9.3f}s{theirs:9.3f}s{mine / theirs:8.2f}{target:8.2f}"
        print(line)  # noqa: T201
    return 0


def _seconds(words):
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start
