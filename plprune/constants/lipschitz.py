"""The Lipschitz constant of a gradient: the largest |eigenvalue| of its Hessian."""

from typing import Any

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from plprune.operators import flat, hessian_product
from plprune.spectra import ritz_ends
from plprune.types import Estimate, Objective, Params


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
      params: Point at which it is taken.
      batch: Passed to `objective`.
      key: Draws the first Krylov direction.
      tol: Relative residual at which Lanczos stops.
      max_steps: Most Hessian products; memory is ``max_steps`` copies of the parameters.

    Returns:
      `error` is the residual of the eigenpair: measured, and valid up to a first direction that
      misses the top eigenvector, which has probability zero. Unresolved (value 0) where the
      Hessian vanishes to rounding or is not finite.
    """
    like = ravel_pytree(params)[0]
    matvec = flat(hessian_product(objective, params, batch), params)
    ends = ritz_ends(matvec, like, key=key, tol=tol, max_steps=max_steps, which="magnitude")
    magnitudes = jnp.abs(ends.values)
    top = jnp.argmax(magnitudes)
    value, residual = magnitudes[top], ends.residuals[top]
    error = residual + 10 * jnp.finfo(like.dtype).eps * value
    finite = jnp.isfinite(value) & jnp.isfinite(error)
    resolved = finite & (value > error)
    bound = jnp.where(finite, value + error, jnp.inf)
    return Estimate(jnp.where(resolved, value, 0), jnp.where(resolved, error, bound), resolved)
