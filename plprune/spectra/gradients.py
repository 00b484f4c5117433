# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues that differentiate by Hellmann-Feynman: d lambda = u' dA u with u held fixed."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from plprune.spectra.dense import extreme_eigenpairs
from plprune.spectra.scaling import widened

_VECTOR_TOL = 1e-12  # Of values; the vectors' residuals are of the order of its root.
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def extreme_eigenvalues(
    matrix: Num[Array, "n n"], num_smallest: int = 1, method: str = "auto"
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """The `num_smallest` lowest eigenvalues, ascending, and the highest one; differentiable.

    The derivative is ``u' dA u`` per eigenvector u, never one of `eigh`. It is that of a simple
    eigenvalue; where eigenvalues coincide only the mean over the whole cluster is smooth
    (`smallest_mean`). `method` is that of `extreme_eigenpairs`: "krylov" takes Ritz values for
    eigenvalues.
    """
    return _extreme_eigenvalues(widened("matrix", matrix), num_smallest, method)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _extreme_eigenvalues(matrix, num_smallest, method):
    pairs = extreme_eigenpairs(matrix, num_smallest=num_smallest, method=method)
    return pairs.smallest, pairs.largest


@_extreme_eigenvalues.defjvp
def _extreme_eigenvalues_jvp(num_smallest, method, primals, tangents):
    (matrix,), (change,) = primals, tangents
    pairs = extreme_eigenpairs(matrix, num_smallest=num_smallest, method=method, tol=_VECTOR_TOL)
    low = _einsum("ik,ij,jk->k", pairs.smallest_vectors, change, pairs.smallest_vectors)
    high = _einsum("i,ij,j->", pairs.largest_vector, change, pairs.largest_vector)
    return (pairs.smallest, pairs.largest), (low, high)


def smallest_mean(matrix: Num[Array, "n n"], num_smallest: int) -> Float[Array, ""]:
    """Mean of the `num_smallest` lowest eigenvalues, smooth while the next one lies apart.

    Its derivative is the trace of ``V' dA V`` over `num_smallest`, which does not depend on the
    basis V of the invariant subspace, so eigenvalues that coincide within it do no harm.
    """
    return jnp.mean(extreme_eigenvalues(matrix, num_smallest)[0])
