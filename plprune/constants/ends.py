# SPDX-License-Identifier: Apache-2.0
"""Both ends of the tangent kernel's spectrum, by the method asked for, with errors."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from plprune.independence import check_independent
from plprune.kernels import tangent_kernel
from plprune.kernels.contraction import example_jacobians
from plprune.kernels.problem import differentiable, make_problem
from plprune.operators import flat, flat_outputs, tangent_kernel_product
from plprune.spectra import extreme_eigenpairs, ritz_ends
from plprune.types import Apply, Estimate, Inputs, Params

METHODS = ("auto", "dense", "svd", "matrix_free")
_MAX_STEPS = 1000
_JACOBIAN_BYTES = 2**26  # Up to here "auto" may turn to the singular values of the whole Jacobian.


class KernelEnds(NamedTuple):
    """lambda_min and lambda_max of K [b c, b c], unnormalised, neither ever rounding noise."""

    lowest: Estimate
    highest: Estimate


def kernel_ends(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    method: str,
    key: PRNGKeyArray | None,
    tol: float,
    independent: bool,
) -> KernelEnds:
    """Both ends; see `pl_constant` for the arguments and what is resolved."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if method == "matrix_free" and key is None:
        raise ValueError("key must be given for method 'matrix_free', got None.")
    _, leaves, _ = differentiable(apply, params)
    outputs = jax.eval_shape(flat_outputs(apply), params, inputs)
    full_rank = 0 < outputs.size <= sum(p.size for p in leaves)
    if outputs.size == 0 or not leaves:
        dtype = jnp.promote_types(outputs.dtype, jnp.float32)
        zero = Estimate(jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.zeros((), bool))
        return KernelEnds(zero, zero)
    # Below, branches and loops see no values that could decide: once here, for all methods.
    check_independent(apply, params, inputs, independent=independent)
    # Where the rank is short the singular values of J say no more than K does.
    if method == "svd" and full_rank:
        return _by_svd(apply, params, inputs)
    if method == "matrix_free":
        return _matrix_free(apply, params, inputs, full_rank, key=key, tol=tol)
    ends = dense_ends(tangent_kernel(apply, params, inputs, independent=True), full_rank, tol=tol)
    single = ends.lowest.value.dtype == jnp.float32
    size = 4 * outputs.size * sum(p.size for p in leaves)
    if method == "dense" or not (single and full_rank and size <= _JACOBIAN_BYTES):
        return ends
    return jax.lax.cond(
        ends.lowest.resolved, lambda *_: ends, partial(_by_svd, apply), params, inputs
    )


def dense_ends(kernel: Float[Array, "b c b c"], full_rank: bool, *, tol: float) -> KernelEnds:
    """Both ends of a kernel at hand; `full_rank` if its model has b c parameters or more."""
    pairs = extreme_eigenpairs(kernel.reshape(kernel.shape[0] * kernel.shape[1], -1), tol=tol)
    errors = pairs.smallest[0] - pairs.lower, pairs.upper - pairs.largest
    return _resolved((pairs.smallest[0], pairs.largest), errors, full_rank)


def _matrix_free(apply, params, inputs, full_rank, *, key, tol):
    function, leaves, _ = differentiable(apply, params)
    with jax.default_matmul_precision("highest"):
        outputs = jax.eval_shape(flat_outputs(function), leaves, inputs)
        like = jnp.zeros(outputs.shape, outputs.dtype)
        product = flat(tangent_kernel_product(function, leaves, inputs, independent=True), like)
        # The highest end converges long before the lowest.
        ends = ritz_ends(
            product, like.ravel(), key=key, tol=tol, max_steps=_MAX_STEPS, which="lowest"
        )
    dtype = jnp.promote_types(outputs.dtype, jnp.float32)
    return _resolved(tuple(ends.values.astype(dtype)), tuple(ends.residuals), full_rank)


def _by_svd(apply, params, inputs):
    """From the singular values of J, whose rounding is that of sigma, not of sigma^2."""
    with jax.default_matmul_precision("highest"):
        problem = make_problem(apply, params, inputs, None, "contraction", None, independent=True)
        jacobian = jnp.concatenate(example_jacobians(problem, inputs), axis=-1)
    flat_jacobian = jacobian.reshape(jacobian.shape[0] * jacobian.shape[1], -1)
    triangle = jnp.linalg.qr(flat_jacobian.T, mode="r")
    sigmas = jnp.linalg.svd(triangle, compute_uv=False)
    slack = max(10.0, len(triangle) ** 0.5) * jnp.finfo(sigmas.dtype).eps * sigmas[0]
    low, high = sigmas[-1], sigmas[0]
    errors = slack * (2 * low + slack), slack * (2 * high + slack)
    finite = jnp.isfinite(high) & jnp.isfinite(low)
    return KernelEnds(
        _estimate(low**2, errors[0], finite & (low > 10 * slack)),
        _estimate(high**2, errors[1], finite & (high > 0)),
    )


def _resolved(values, errors, full_rank):
    """Estimates from K itself, whose entries carry rounding of order eps lambda_max."""
    low, high = values
    eps = jnp.finfo(low.dtype).eps
    rounding = 10 * eps * jnp.abs(high)
    errors = [jnp.abs(e).astype(low.dtype) + rounding for e in errors]
    finite = jnp.isfinite(low) & jnp.isfinite(high) & jnp.isfinite(errors[0] + errors[1])
    is_clear = finite & full_rank & (low > 100 * eps * high) & (low > errors[0])
    return KernelEnds(
        _estimate(low, jnp.where(full_rank, errors[0], rounding), is_clear),
        _estimate(high, errors[1], finite & (high > errors[1])),
    )


def _estimate(
    value: Float[Array, ""], error: Float[Array, ""], resolved: Bool[Array, ""]
) -> Estimate:
    """The value where it is resolved, else zero with an error that bounds the truth."""
    bound = jnp.where(jnp.isfinite(value + error), jnp.abs(value) + error, jnp.inf)
    return Estimate(jnp.where(resolved, value, 0), jnp.where(resolved, error, bound), resolved)
