"""The largest eigenvalue of the Hessian of cross-entropy, matrix-free."""

from benchmarks import problems
from benchmarks.race import Contestant, table

FIELD = [
    Contestant("plprune, Lanczos, tol 1e-2", "jax_hessian", "plprune"),
    Contestant("matfree, Lanczos 30", "jax_hessian", "matfree"),
    Contestant("curvlinops and ARPACK, tol 1e-4", "torch_hessian", "curvlinops", "torch"),
    Contestant("PyHessian, power method, tol 1e-3", "torch_hessian", "pyhessian", "torch"),
    Contestant("reference", "jax_hessian", "reference"),
]


def main(repeats: int) -> int:
    """Print the table."""
    title = "MLP 784-256-256-10, 512 examples, float32: largest Hessian eigenvalue"
    table(title, FIELD, problems.mlp((784, 256, 256, 10), 512), repeats)
    return 0
