# SPDX-License-Identifier: Apache-2.0
"""Smooth stand-ins for the sum of the norms of groups of weights."""

from typing import Literal

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from plprune.norms import raised, root
from plprune.optimizers.scaling import ratio

SmoothForm = Literal["rational", "convex"]
Scalar = ArrayLike


def group_penalty(
    squared_norms: Float[Array, " g"], *, beta: Scalar, form: SmoothForm = "rational"
) -> Float[Array, ""]:
    """Smooth stand-in for the sum of the norms of g groups.

    With s the squared norm of a group, ``rational`` adds s / sqrt(s + beta) and ``convex`` adds
    sqrt(s + beta) - sqrt(beta). Both vanish at 0 and tend to sqrt(s) as beta falls to 0; which one
    and what beta are our choice.
    """
    squared_norms = jnp.asarray(squared_norms)
    wide = jnp.asarray(raised(squared_norms))
    smooth = root(wide + beta)
    # s / (smooth + sqrt(beta)) is the convex form without its cancellation at small s.
    below = smooth if form == "rational" else smooth + jnp.sqrt(jnp.asarray(beta, wide.dtype))
    # Without smoothing a zero group adds nothing, and has derivative zero.
    zero = below == 0
    terms = jnp.where(zero, 0, wide / jnp.where(zero, 1, below))
    return jnp.sum(terms).astype(squared_norms.dtype)


def penalty_factors(
    squared_norms: Float[Array, " g"], *, beta: Scalar, form: SmoothForm = "rational"
) -> Float[Array, " g"]:
    """Factors c such that the gradient of `group_penalty` in group i is c_i times group i.

    ``rational`` gives (s + 2 beta) / (s + beta)^(3/2), at most 2 / sqrt(beta); ``convex`` gives
    1 / sqrt(s + beta), at most 1 / sqrt(beta). Derived in docs/mathematics/group_lasso.md.
    """
    squared_norms = jnp.asarray(squared_norms)
    norms = root(jnp.asarray(raised(squared_norms)))
    return factors_of(norms, beta, form).astype(squared_norms.dtype)


def factors_of(norms: Float[Array, " g"], beta: Scalar, form: str) -> Float[Array, " g"]:
    """`penalty_factors` of the norms, whose squares may be out of range; 0 where all is zero."""
    edge = jnp.sqrt(jnp.asarray(beta, norms.dtype))
    smooth = jnp.hypot(norms, edge)
    convex = ratio(1.0, smooth, otherwise=0.0)
    return convex * (1 + jnp.square(edge * convex)) if form == "rational" else convex
