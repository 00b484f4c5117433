# SPDX-License-Identifier: Apache-2.0
"""Both extreme eigenvalues of a dense kernel in float64, by plprune or by numpy's eigvalsh.

Arguments: METHOD ARRAYS RESULT REPEATS.
"""

import sys

import numpy as np
from clock import arrays, report

factor = arrays()["factor"].astype(np.float64)
matrix = factor @ factor.T


def eigvalsh():
    """All eigenvalues, of which the ends."""
    return np.linalg.eigvalsh(matrix)[[0, -1]]


def plprune():
    """The certified ends."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from plprune.spectra import extreme_eigenpairs

    solve = jax.jit(extreme_eigenpairs)
    on_device = jax.numpy.asarray(matrix)

    def call():
        pairs = jax.block_until_ready(solve(on_device))
        if not pairs.lower > 0.999 * pairs.smallest[0]:
            raise RuntimeError("the lower end was not certified")
        return np.array([pairs.smallest[0], pairs.largest])

    return call


report({"eigvalsh": lambda: eigvalsh, "plprune": plprune}[sys.argv[1]](), np.asarray)
