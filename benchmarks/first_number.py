# SPDX-License-Identifier: Apache-2.0
"""Seconds to the first number and to the second: fresh processes, a cold and a warm cache.

Every line is a process of its own, and lines take turns. Their clock starts after the imports.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks import problems
from benchmarks.race import Contestant, run

# Task: how its line is called. Those of torch have no cache between processes.
OWN = {
    "measure": "plprune.measure",
    "kernel": "plprune.tangent_kernel",
    "gates": "a gate update of pl_gating",
    "nodes": "plprune.find_nodes",
    "jacrev": "vmap(jacrev) and one product",
}
TORCH = {
    "jacrev": "torch.func, vmap(jacrev)",
    "curvlinops": "curvlinops, largest eigenvalue",
}
MEASURES = (
    "pl_constant", "condition_number", "lipschitz_constant", "tangent_kernel", "measure",
)  # fmt: skip


class Seconds(NamedTuple):
    """Of one line, from the end of the imports; `reason` says why it has none."""

    cold: list[float]  # To the first number, with an empty cache of compiled programs.
    warm: list[float]  # The same in another process, which finds the first one's programs.
    second: list[float]  # From the first number to the second, in both.
    reason: str = ""


def fresh(
    contestants: Mapping[str, Contestant], arrays: Mapping[str, np.ndarray], repeats: int
) -> dict[str, Seconds]:
    """Seconds of each contestant in `repeats` pairs of processes, one cold and one warm.

    Contestants of another environment than this one keep no programs and are only run cold.
    """
    found = {name: Seconds([], [], []) for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            if not found[name].reason:
                found[name] = _pair(contestant, arrays, found[name])
    return found


def _pair(contestant, arrays, before):
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        for firsts in (before.cold, before.warm):
            if firsts is before.warm and contestant.environment != "own":
                break
            numbers, _, reason = run(contestant, arrays, 1, settings)
            if numbers is None:
                return before._replace(reason=reason)
            firsts.append(numbers["first"])
            before.second.append(numbers["second"])
    return before


def field(model: str, *, torch: bool = True) -> dict[str, Contestant]:
    """The lines of one model: ours, vmap(jacrev), and peers in torch."""
    lines = {
        task: Contestant(label, "first_number", f"{model}:{task}") for task, label in OWN.items()
    }
    if torch:
        for task, label in TORCH.items():
            method = f"{model}:{task}"
            lines[f"torch {task}"] = Contestant(label, "torch_first_number", method, "torch")
    return lines


def table(
    title: str,
    contestants: Mapping[str, Contestant],
    make: Callable[[], Mapping[str, np.ndarray]],
    repeats: int,
) -> int:
    """Print the medians of one model, and the first numbers' ratio to vmap(jacrev)'s; 0."""
    found = fresh(contestants, make(), repeats)
    beside = found["jacrev"].cold if "jacrev" in found else []
    print(f"\n{title}")  # noqa: T201
    print(f"{'':34}{'first, cold':>13}{'x jacrev':>10}{'warm':>9}{'second':>10}")  # noqa: T201
    for name, contestant in contestants.items():
        print(f"{contestant.label:34}{_line(found[name], beside)}")  # noqa: T201
    return 0


def _line(seconds, beside):
    if seconds.reason:
        return f"  skipped: {seconds.reason}"
    first = median(seconds.cold)
    ratio = f"{first / median(beside):10.2f}" if beside else f"{'':10}"
    warm = f"{median(seconds.warm):8.2f}s" if seconds.warm else f"{'':9}"
    return f"{first:12.2f}s{ratio}{warm}{1e3 * median(seconds.second):8.1f}ms"


def calls(repeats: int) -> int:
    """Print later plain calls beside the same under jax.jit; 1 if one compiled anything."""
    from plprune import scores

    print("\nMLP 784-256-256-10, 64 examples: later calls, plain and under jax.jit")  # noqa: T201
    print("backend compilations in a second call, with the function written again,")  # noqa: T201
    print("with other values of the parameters")  # noqa: T201
    heads = ("first", "plain", "jitted", "ratio", "more", "compiled")
    print(f"{'':20}" + "".join(f"{head:>11}" for head in heads))  # noqa: T201
    arrays, compiled = problems.mlp((784, 256, 256, 10), 64), 0
    functions = list(scores.SCORES)
    for name in (*MEASURES, *functions):
        numbers, _, reason = run(Contestant(name, "plain_calls", name), arrays, repeats)
        if numbers is None:
            print(f"{name:20}  skipped: {reason}")  # noqa: T201
            continue
        plain, jitted = numbers["plain"], numbers["jitted"]
        counts = tuple(numbers["compilations"].values())
        compiled += sum(counts)
        print(  # noqa: T201
            f"{name:20}{numbers['first']:10.2f}s{1e3 * plain:9.2f}ms{1e3 * jitted:9.2f}ms"
            f"{plain / jitted:11.2f}{1e3 * (plain - jitted):9.2f}ms   {counts}"
        )
    return int(compiled > 0)


README = {"measure": Contestant(OWN["measure"], "first_number", "readme:measure")}
TABLES = {
    "readme": partial(
        table, "The README's MLP 64-128-128-10, 32 examples", README,
        lambda: {"x": problems.mlp((64, 10), 32)["x"]},
    ),
    "mlp": partial(
        table, "MLP 784-256-256-10, 64 examples", field("mlp"),
        lambda: problems.mlp((784, 256, 256, 10), 64),
    ),
    "cnn": partial(
        table, "CNN 16x16x3 (16, 32 channels), 64 examples", field("cnn"),
        lambda: problems.cnn(64),
    ),
    "resnet20": partial(
        table, "ResNet-20, 32 images of 32 x 32", field("resnet20"), lambda: problems.images(32)
    ),
    "transformer": partial(
        table, "Transformer, 4 scanned layers of width 64, 32 examples of 32 tokens",
        field("transformer"), lambda: problems.transformer(32),
    ),
    "calls": calls,
}  # fmt: skip


def main(repeats: int) -> int:
    """Print all tables; 1 if a later plain call compiled anything."""
    return max(make(repeats) for make in TABLES.values())
