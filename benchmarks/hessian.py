# SPDX-License-Identifier: Apache-2.0
"""The largest eigenvalue of a Hessian, matrix-free, and both ends of dense kernels."""

from benchmarks import problems
from benchmarks.race import Contestant, table

FIELD = [
    Contestant("plprune, Lanczos, tol 1e-2", "jax_hessian", "plprune"),
    Contestant("matfree, Lanczos 30", "jax_hessian", "matfree"),
    Contestant("curvlinops and ARPACK, tol 1e-4", "torch_hessian", "curvlinops", "torch"),
    Contestant("PyHessian, power method, tol 1e-3", "torch_hessian", "pyhessian", "torch"),
    Contestant("reference", "jax_hessian", "reference"),
]
DENSE = [
    Contestant("plprune, certified", "dense_spectrum", "plprune"),
    Contestant("numpy eigvalsh", "dense_spectrum", "eigvalsh"),
]


def largest(repeats: int) -> int:
    """Largest eigenvalue of a Hessian."""
    title = "MLP 784-256-256-10, 512 examples, float32: largest Hessian eigenvalue"
    table(title, FIELD, problems.mlp((784, 256, 256, 10), 512), repeats)
    return 0


def dense(repeats: int) -> int:
    """Both ends of dense kernels."""
    for size in (2048, 4096):
        title = f"Extreme eigenvalues of a dense {size} x {size} kernel, float64"
        table(title, [*DENSE, DENSE[1]], problems.kernel_factor(size), repeats)
    return 0


TABLES = {"largest": largest, "dense": dense}


def main(repeats: int) -> int:
    """Print all tables."""
    return max(make(repeats) for make in TABLES.values())
