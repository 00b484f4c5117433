# SPDX-License-Identifier: Apache-2.0
"""A function of a tree as one of those of its leaves that have derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plprune.types import Apply, Params


def of_real_leaves(apply: Apply, params: Params) -> tuple[Apply, list[Any], tuple[int, ...]]:
    """`apply` of the list of floating-point leaves alone, these, and which of all they are.

    Integers, booleans, complex numbers and random keys are held fixed.
    """
    leaves, structure = jax.tree.flatten(params)
    real = tuple(
        k for k, p in enumerate(leaves) if jnp.issubdtype(jnp.result_type(p), jnp.floating)
    )

    def function(values, inputs):
        merged = dict(enumerate(leaves)) | dict(zip(real, values, strict=True))
        return apply(jax.tree.unflatten(structure, [merged[k] for k in range(len(leaves))]), inputs)

    return function, [leaves[k] for k in real], real


def differentiable(apply: Apply, params: Params) -> tuple[Apply, list[Array], tuple[int, ...]]:
    """`of_real_leaves`, with leaves of fewer than 32 bits raised to float32."""
    function, leaves, real = of_real_leaves(apply, params)
    wide = [jnp.promote_types(jnp.result_type(p), jnp.float32) for p in leaves]
    return function, [jnp.asarray(p, d) for p, d in zip(leaves, wide, strict=True)], real
