# SPDX-License-Identifier: Apache-2.0
"""The PL constant, the least eigenvalue of the tangent kernel, and the PL ratio at a point."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.constants.ends import kernel_ends
from plprune.kernels.tiles import batch_size
from plprune.types import Apply, Estimate, Inputs, Objective, Params


def pl_constant(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    method: str = "auto",
    key: PRNGKeyArray | None = None,
    tol: float = 1e-6,
) -> Estimate:
    """The PL constant mu = lambda_min(K)/b at `params`, of the mean loss over b examples.

    With L = 1/(2b) sum_i |f(x_i) - y_i|^2 it gives 1/2 |grad L|^2 >= mu L [Liu 2022]; K is the
    tangent kernel [b c, b c]. On part of the data it is optimistic: that part's K is a principal
    submatrix, whose least eigenvalue is at least the whole one's (interlacing).

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c].
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      method: "dense" forms K and certifies its ends; "svd" takes the singular values of the whole
        Jacobian, which resolve lambda_min down to eps^2 lambda_max instead of eps lambda_max, at
        the memory of b c p numbers; "matrix_free" runs Lanczos on products with K and needs `key`;
        its error is measured, not certified. "auto" is "dense".
      key: For "matrix_free".
      tol: Relative residual at which iterations stop.

    Returns:
      Unresolved (value 0, `error` bounds the truth) where parameters are fewer than b c or
      lambda_min is below what the dtype resolves, about 100 eps lambda_max.

    Raises:
      ValueError: an unknown method, a missing key, or as `tangent_kernel`.
    """
    low = kernel_ends(apply, params, inputs, method=method, key=key, tol=tol).lowest
    size = max(batch_size(inputs), 1)
    return Estimate(low.value / size, low.error / size, low.resolved)


def pl_ratio(
    objective: Objective, params: Params, batch: Any, *, minimum: float = 0.0
) -> Float[Array, ""]:
    """|grad L|^2 / (2 (L - minimum)) at `params`: the largest mu for which PL holds there.

    For the mean square loss 1/(2b) sum |f - y|^2 it lies between the extreme eigenvalues of K/b
    [Liu 2022]. At a loss of `minimum` or below it is infinite: PL holds with any mu.
    """
    loss, gradient = jax.value_and_grad(objective)(params, batch)
    square = sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient))
    excess = loss - minimum
    return jnp.where(excess > 0, square / (2 * jnp.where(excess > 0, excess, 1)), jnp.inf)
