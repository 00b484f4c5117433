# SPDX-License-Identifier: Apache-2.0
"""Runs contestants one after the other on the same arrays and prints their table."""

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.environments import ROOT, interpreter

CONTESTANTS = ROOT / "benchmarks" / "contestants"
_SECONDS = 900


class Contestant(NamedTuple):
    """One method: its label, program, argument and environment."""

    label: str
    program: str
    method: str
    environment: str = "own"


class Outcome(NamedTuple):
    """What one contestant reported; without numbers `reason` says why."""

    numbers: dict | None
    value: np.ndarray | None
    reason: str


def run(
    contestant: Contestant,
    arrays: Mapping[str, np.ndarray],
    repeats: int,
    settings: Mapping[str, str] | None = None,
) -> Outcome:
    """Run one contestant in a process of its own, so that peak memory is its own too.

    The process gets this one's environment variables, changed by `settings`.
    """
    python, reason = interpreter(contestant.environment)
    if python is None:
        return Outcome(None, None, reason)
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "arrays.npz", Path(folder) / "result.npy"
        np.savez(source, **arrays)
        program = CONTESTANTS / f"{contestant.program}.py"
        command = [python, str(program), contestant.method, str(source), str(result), str(repeats)]
        own = {"PYTHONPATH": f"{ROOT}:{CONTESTANTS}"}
        environment = _environment() | (own if contestant.environment == "own" else {})
        environment |= settings or {}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            return Outcome(None, None, f"stopped after {_SECONDS} s")
        if done.returncode:
            return Outcome(None, None, _reason(done.stderr))
        return Outcome(json.loads(done.stdout.splitlines()[-1]), np.load(result), "")


def table(
    title: str, contestants: list[Contestant], arrays: Mapping[str, np.ndarray], repeats: int
) -> dict[str, Outcome]:
    """Print one line per contestant: median, ratio to the first one, memory, difference.

    The last contestant is the reference of the differences and is not listed.
    """
    outcomes = {c.label: run(c, arrays, repeats) for c in contestants}
    own, reference = (outcomes[contestants[k].label] for k in (0, -1))
    print(f"\n{title}")  # noqa: T201
    print(f"{'':34}{'median':>10}{'x ours':>9}{'peak MiB':>10}{'rel. diff.':>12}")  # noqa: T201
    for contestant in contestants[:-1]:
        outcome = outcomes[contestant.label]
        print(f"{contestant.label:34}{_line(outcome, own, reference)}")  # noqa: T201
    return outcomes


def _line(outcome, own, reference):
    if outcome.numbers is None:
        return f"  skipped: {outcome.reason}"
    numbers = outcome.numbers
    ratio = numbers["median"] / own.numbers["median"] if own.numbers else float("nan")
    difference = float("nan")
    if reference.value is not None:
        truth = reference.value
        difference = np.abs(outcome.value - truth).max() / np.abs(truth).max()
    products = f"   {numbers['products']} products" if numbers.get("products") else ""
    median, memory = numbers["median"], numbers["mib"]
    return f"{median:9.4f}s{ratio:9.2f}{memory:10.0f}{difference:12.1e}{products}"


def _reason(stderr):
    """The line that names the exception; jax may write others after it."""
    lines = stderr.strip().splitlines() or ["failed"]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or lines)[-1][:90]


def _environment():
    import os

    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
