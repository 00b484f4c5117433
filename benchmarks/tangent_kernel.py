# SPDX-License-Identifier: Apache-2.0
"""The full tangent kernel of an MLP and a CNN, and of a wide MLP whose Jacobian fits nowhere."""

from benchmarks import problems
from benchmarks.race import Contestant, run, table

OURS = Contestant("plprune", "jax_kernel", "plprune")
FIELD = [
    OURS,
    Contestant("neural-tangents, structured", "jax_kernel", "structured", "neural-tangents"),
    Contestant("neural-tangents, contraction", "jax_kernel", "contraction", "neural-tangents"),
    Contestant("vmap(jacrev) and one product", "jax_kernel", "jacrev"),
    Contestant("reference", "jax_kernel", "float64"),
]


def mlp(repeats: int) -> int:
    """The dense net."""
    title = "MLP 784-256-256-10, 128 examples, float32: kernel 1280 x 1280"
    table(title, FIELD, problems.mlp((784, 256, 256, 10), 128), repeats)
    return 0


def cnn(repeats: int) -> int:
    """The convolutional net."""
    title = "CNN 16x16x3 (16, 32 channels), 64 examples, float32: kernel 640 x 640"
    table(title, FIELD, problems.cnn(64), repeats)
    return 0


def flat(repeats: int) -> int:
    """The convolutional net with a head that reads every position."""
    title = "The same CNN without the mean before its dense layer: kernel 640 x 640"
    table(title, FIELD, problems.cnn(64, pooled=False), repeats)
    return 0


def wide(repeats: int) -> int:
    """The wide net, against the rate of a plain product; 1 if it failed."""
    outcome = run(OURS, problems.mlp((784, 1024, 1024, 10), 1024), repeats)
    print("\nMLP 784-1024-1024-10, 1024 examples: kernel 10240 x 10240, 400 MiB")  # noqa: T201
    if outcome.numbers is None:
        print(f"failed: {outcome.reason}")  # noqa: T201
        return 1
    numbers = outcome.numbers
    operations = 2 * 1024**2 * (784 + 2 * 1024 + 100 * (2 * 1024 + 10))
    rate = operations / numbers["best"] / 1e9
    print(  # noqa: T201
        f"{numbers['best']:.2f} s, {rate:.0f} GFLOP/s counting the full square = "
        f"{rate / numbers['peak_gflops']:.0%} of a product's {numbers['peak_gflops']:.0f}; "
        f"peak memory {numbers['mib'] / 400:.2f} x the kernel"
    )
    return 0


def check(repeats: int) -> int:
    """The check of independent examples against a call that pays for it; 1 if it failed."""
    nets = {"MLP": problems.mlp((784, 256, 256, 10), 128), "CNN": problems.cnn(64)}
    contestant = Contestant("check", "independence_check", "plain")
    print("\nThe check that examples are independent, in calls without jit")  # noqa: T201
    failed = 0
    for name, arrays in nets.items():
        outcome = run(contestant, arrays, repeats)
        if outcome.numbers is None:
            failed = 1
            print(f"{name}: failed: {outcome.reason}")  # noqa: T201
            continue
        numbers = outcome.numbers
        print(  # noqa: T201
            f"{name}: {1e3 * numbers['check']:.2f} ms of the {1e3 * numbers['median']:.0f} ms of a "
            f"first call = {numbers['check'] / numbers['median']:.1%}, {numbers['added']} "
            f"compilations; later calls make none and take {1e3 * numbers['later']:.1f} ms, under "
            f"jit {1e3 * numbers['jitted']:.1f} ms"
        )
    return failed


TABLES = {"mlp": mlp, "cnn": cnn, "flat": flat, "wide": wide, "check": check}


def main(repeats: int) -> int:
    """Print all tables; 1 if one failed."""
    return max(make(repeats) for make in TABLES.values())
