# SPDX-License-Identifier: Apache-2.0
"""Greedy pruning of the columns of U, and what theory says of the columns that stay."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from plprune.matrix_sensing.problem import Factor


def column_norms(factor: Factor) -> Float[Array, " k"]:
    """l2 norm of each column of U."""
    return jnp.linalg.norm(factor, axis=0)


def threshold(beta: float) -> float:
    """2 sqrt(beta), below which a column is pruned (our choice).

    A column of this norm feels at least 0.89 of the full pull lambda of the norm itself, under
    either smooth form: what has not grown past it is not held up by the data.
    """
    return 2 * math.sqrt(beta)


def prune(factor: Factor, threshold: float) -> Float[Array, "d kept"]:
    """U without the columns of norm at most `threshold`.

    Its shape depends on values: not for use under `jit`.
    """
    keep = np.asarray(column_norms(factor)) > threshold
    return factor[:, np.flatnonzero(keep)]


def zero_below(factor: Factor, threshold: float | Float[Array, ""]) -> Factor:
    """`prune` under `jit` and `vmap`: the columns to prune become zero, and stay so in training."""
    return jnp.where((column_norms(factor) > threshold)[None], factor, 0)


def keep_largest(factor: Factor, count: int) -> Float[Array, "d count"]:
    """The `count` columns of largest norm, in their order in U."""
    if not 1 <= count <= factor.shape[1]:
        raise ValueError(f"count must lie in [1, k = {factor.shape[1]}], got {count}.")
    largest = jnp.argsort(column_norms(factor), descending=True)[:count]
    return factor[:, jnp.sort(largest)]


def share_above(norms: Float[Array, " k"], fraction: Float[Array, ""] | float) -> Float[Array, ""]:
    """Share of the columns whose norm is at least `fraction` of the largest one's."""
    return jnp.mean(norms >= fraction * jnp.max(norms))


def escape_bound(gain: float, *, beta: float, form: str = "rational") -> float:
    """The strength lambda above which a tiny start collapses to U = 0.

    Near 0 the loss lets the weakest direction of the truth grow at rate 4 gain (`escape_gain`)
    while the penalty shrinks it at rate lambda times the largest factor: 2 lambda / sqrt(beta)
    (``rational``), lambda / sqrt(beta) (``convex``). Hence 2 sqrt(beta) gain and 4 sqrt(beta) gain.
    Derived in docs/mathematics/group_lasso.md.
    """
    return (2 if form == "rational" else 4) * math.sqrt(beta) * gain


def spurious_bound(d: int, n: int, noise: float) -> float:
    """The strength lambda above which noise alone holds up no column, to leading order.

    Gaussian measurements with noise of standard deviation `noise` let a column that is orthogonal
    to the truth grow at a rate up to tau = 4 noise sqrt(2 d / n). At norm t it feels
    tau t - 4 t^3 - lambda, negative for every t where lambda exceeds tau^(3/2) / (3 sqrt(3)).
    Derived in docs/mathematics/group_lasso.md.
    """
    return (4 * noise * math.sqrt(2 * d / n)) ** 1.5 / (3 * math.sqrt(3))


def stationary_norm(sigma: Float[Array, "..."], strength: float) -> Float[Array, "..."]:
    """Norm of the one column that carries the singular value sigma at the regularised optimum.

    sqrt(sigma^2 - strength / (4 sigma)), to first order in the strength, with beta far below
    sigma^2 and for the Gaussian population loss. Derived in docs/mathematics/group_lasso.md.
    """
    return jnp.sqrt(jnp.square(sigma) - strength / (4 * sigma))


def stationary_bias(singular_values: Float[Array, " r"], strength: float) -> Float[Array, ""]:
    """|U U' - U* U*'|_F at the regularised optimum, to first order in the strength.

    (strength / 4) sqrt(sum of sigma_i^-2): what fine-tuning removes.
    """
    return strength / 4 * jnp.sqrt(jnp.sum(singular_values**-2.0))
