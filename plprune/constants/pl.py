"""The PL constant: the least eigenvalue of the tangent kernel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.kernels import tangent_kernel
from plprune.kernels.problem import differentiable
from plprune.operators import flat, flat_outputs, tangent_kernel_product
from plprune.spectra import extreme_eigenpairs, ritz_ends
from plprune.types import Apply, Estimate, Inputs, Params

METHODS = ("auto", "dense", "matrix_free")
_MAX_STEPS = 1000


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
    tangent kernel [b c, b c]. For a sub-batch it is optimistic: K is then a principal submatrix,
    whose least eigenvalue is at least the whole one's.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c].
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      method: "dense" forms K; "matrix_free" runs Lanczos on products with K and needs `key`;
        "auto" is "dense".
      key: For "matrix_free".
      tol: Relative residual at which "matrix_free" stops.

    Returns:
      Unresolved (value 0, `error` bounds the truth) where parameters are fewer than b c or
      lambda_min is below what the dtype resolves, about 100 eps lambda_max.

    Raises:
      ValueError: an unknown method, a missing key, or as `tangent_kernel`.
    """
    low, error, high, full = kernel_ends(apply, params, inputs, method=method, key=key, tol=tol)
    return resolve(low, error, high, full, inputs_size(apply, params, inputs))


def kernel_ends(apply, params, inputs, *, method, key, tol):
    """(lambda_min, its error, lambda_max, whether K can have full rank), K unnormalised."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if method == "matrix_free" and key is None:
        raise ValueError("key must be given for method 'matrix_free', got None.")
    function, leaves, _ = differentiable(apply, params)
    outputs = jax.eval_shape(flat_outputs(function), leaves, inputs)
    full_rank = sum(p.size for p in leaves) >= outputs.size
    if method == "matrix_free":
        dtype = jnp.promote_types(outputs.dtype, jnp.float32)
        product = tangent_kernel_product(function, leaves, inputs)
        like = jnp.zeros(outputs.shape, outputs.dtype)
        ends = ritz_ends(
            flat(product, like),
            like.ravel(),
            key=key,
            tol=tol,
            max_steps=_MAX_STEPS,
            which="lowest",
        )
        low, high = ends.values.astype(dtype)
        return low, ends.residuals[0], high, full_rank
    kernel = tangent_kernel(apply, params, inputs)
    matrix = kernel.reshape(outputs.size, outputs.size)
    pairs = extreme_eigenpairs(matrix)
    return pairs.smallest[0], pairs.smallest[0] - pairs.lower, pairs.largest, full_rank


def resolve(
    low: Float[Array, ""], error: Float[Array, ""], high: Float[Array, ""], full_rank: bool, b: int
) -> Estimate:
    """An estimate of lambda_min/b that never passes rounding noise off as a value."""
    floor = 100 * jnp.finfo(low.dtype).eps * jnp.abs(high)
    error = jnp.abs(error) + floor / 10
    finite = jnp.isfinite(low) & jnp.isfinite(error) & jnp.isfinite(high)
    resolved = finite & full_rank & (low > floor) & (low > error)
    bound = jnp.where(finite, jnp.maximum(floor, jnp.abs(low) + error), jnp.inf)
    return Estimate(
        jnp.where(resolved, low, 0) / b, jnp.where(resolved, error, bound) / b, resolved
    )


def inputs_size(apply, params, inputs):
    """The number of examples b."""
    return jax.eval_shape(flat_outputs(apply), params, inputs).shape[0]
