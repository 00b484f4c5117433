# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel by plprune, by vmap(jacrev), or by neural-tangents 0.6.5.

Arguments: METHOD ARRAYS RESULT REPEATS.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from clock import arrays, report
from models import apply

data = arrays()
if sys.argv[1] == "float64":
    jax.config.update("jax_enable_x64", True)
x = jnp.asarray(data.pop("x"), float)
data.pop("y", None)
params = {name: jnp.asarray(a, float) for name, a in data.items()}


def jacrev(p, x):
    """The kernel from whole Jacobians."""
    jacobian = jax.vmap(lambda e: jax.jacrev(lambda q: apply(q, e[None])[0])(p))(x)
    leaves = [j.reshape(*j.shape[:2], -1) for j in jax.tree_util.tree_leaves(jacobian)]
    rows = jnp.concatenate(leaves, -1)
    return jnp.einsum("brp,dsp->brds", rows, rows, precision="highest")


def neural_tangents(structured):
    """Its empirical kernel as [b, c, b, c]."""
    import neural_tangents as nt

    implementations = nt.NtkImplementation
    chosen = (
        implementations.STRUCTURED_DERIVATIVES
        if structured
        else implementations.JACOBIAN_CONTRACTION
    )
    kernel = nt.empirical_ntk_fn(
        lambda p, x: apply(p, x), trace_axes=(), vmap_axes=0, implementation=chosen
    )
    return lambda p, x: jnp.transpose(kernel(x, None, p), (0, 2, 1, 3))


def plprune(p, x):
    """Ours."""
    from plprune.kernels import tangent_kernel

    return tangent_kernel(apply, p, x)


methods = {
    "plprune": lambda: plprune,
    "float64": lambda: plprune,
    "jacrev": lambda: jacrev,
    "structured": lambda: neural_tangents(True),
    "contraction": lambda: neural_tangents(False),
}
function = jax.jit(methods[sys.argv[1]]())


def peak_gflops():
    """The largest rate of a float32 product in this very run."""
    import time

    square = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        jax.block_until_ready(product(square))
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds) / 1e9


report(lambda: jax.block_until_ready(function(params, x)), np.asarray, peak_gflops=peak_gflops)
