# SPDX-License-Identifier: Apache-2.0
"""The Lipschitz constant of a gradient: the largest |eigenvalue| of its Hessian."""

from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from plprune.compilation import compile_once
from plprune.constants.resolution import estimate, magnitude, real_leaves, traced
from plprune.operators import flat, hessian_product
from plprune.spectra import ritz_ends
from plprune.types import Estimate, Objective, Params


@compile_once("params", "batch", "key")
def lipschitz_constant(
    objective: Objective,
    params: Params,
    batch: Any,
    *,
    key: PRNGKeyArray,
    tol: float = 1e-6,
    max_steps: int = 200,
) -> Estimate:
    """Largest |Hessian eigenvalue| of ``objective(params, batch)`` at `params`.

    It is the local Lipschitz constant of the gradient, in the objective's own normalisation.

    Args:
      objective: ``(params, batch) -> scalar``.
      params: Point at which it is taken. Leaves that are not floating-point numbers are held
        fixed, and those of fewer than 32 bits raised to float32.
      batch: Passed to `objective`.
      key: Draws the first Krylov direction.
      tol: Relative residual at which Lanczos stops; the value's own error is of order tol^2 where
        no other eigenvalue lies within about tol of it.
      max_steps: Most Hessian products; memory is ``max_steps`` copies of the parameters.

    Returns:
      `error` bounds the truth with a probability of at least 99.8 % over `key`, whatever the
      spectrum: the margins of `plprune.spectra.RitzEnds` and the rounding of the arithmetic that
      `objective` computes in (that of bfloat16 where it casts to bfloat16). That is far more than
      the usual error, about 1000 times the residual, since one eigenvalue may hide so close to the
      others. Iterations that `max_steps` cut short have large errors. Unresolved (value 0) where
      the error is as large as the value, the Hessian vanishes to rounding, is so small that
      underflow took digits, or is not finite.

    Raises:
      ValueError: no floating-point leaf, complex leaves, or an `objective` that does not return
        one real number.
    """
    function, leaves = real_leaves(objective, params)
    if sum(p.size for p in leaves) == 0:
        raise ValueError("params must hold at least one floating-point number, got none.")
    result, arithmetic = traced(lambda p: function(p, batch), leaves, name="objective")
    if result.shape:
        raise ValueError(f"objective must return a scalar, got shape {result.shape}.")
    like = ravel_pytree(leaves)[0]
    with jax.default_matmul_precision("highest"):
        matvec = flat(hessian_product(function, leaves, batch), leaves)
        ends = ritz_ends(matvec, like, key=key, tol=tol, max_steps=max_steps, which="magnitude")
    value, error = magnitude(ends)
    return estimate(value, error + 2 * arithmetic.rounding(like.size) * value, arithmetic)
