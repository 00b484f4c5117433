# SPDX-License-Identifier: Apache-2.0
"""The Hessian's largest eigenvalue by plprune or by matfree.

Arguments: METHOD ARRAYS RESULT REPEATS.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from clock import arrays, report
from jax.flatten_util import ravel_pytree

data = arrays()
batch = jnp.asarray(data.pop("x")), jnp.asarray(data.pop("y"))
params = {name: jnp.asarray(a) for name, a in data.items()}


def objective(p, batch):
    """Mean cross-entropy."""
    x, labels = batch
    depth = len(p) // 2
    for k in range(depth):
        x = x @ p[f"w{k}"] + p[f"b{k}"]
        x = x if k == depth - 1 else jax.nn.relu(x)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1))


def plprune(p, batch):
    """The top Ritz value and the products it took."""
    from plprune.operators import flat, hessian_product
    from plprune.spectra import ritz_ends

    matvec = flat(hessian_product(objective, p, batch), p)
    ends = ritz_ends(
        matvec, ravel_pytree(p)[0], key=jax.random.key(0), tol=tolerance, max_steps=40,
        which="highest",
    )  # fmt: skip
    return ends.values[1], ends.num_products


def matfree(p, batch):
    """The same by 30 steps without a stopping rule."""
    from matfree import decomp

    vector, unravel = ravel_pytree(p)
    decompose = decomp.tridiag_sym(30)

    def product(v):
        gradient = jax.grad(lambda q: objective(unravel(q), batch))
        return jax.jvp(gradient, (vector,), (v,))[1]

    start = jax.random.normal(jax.random.key(0), vector.shape)
    small = decompose(product, start).J_small
    return jnp.linalg.eigvalsh(small)[-1], jnp.asarray(30)


tolerance = 1e-6 if sys.argv[1] == "reference" else 1e-2
method = {"plprune": plprune, "reference": plprune, "matfree": matfree}[sys.argv[1]]
function = jax.jit(method)
report(
    lambda: jax.block_until_ready(function(params, batch)),
    lambda result: np.asarray(result[0]),
    products=lambda: int(function(params, batch)[1]),
)
