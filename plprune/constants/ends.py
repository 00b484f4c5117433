# SPDX-License-Identifier: Apache-2.0
"""Both ends of the tangent kernel's spectrum, by the method asked for, with errors."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.constants.resolution import Arithmetic, estimate, real_leaves, traced
from plprune.kernels import tangent_kernel
from plprune.kernels.contraction import example_jacobians
from plprune.kernels.problem import make_problem
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
) -> KernelEnds:
    """Both ends; see `pl_constant` for the arguments and what is resolved."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if method == "matrix_free" and key is None:
        raise ValueError("key must be given for method 'matrix_free', got None.")
    function, leaves = real_leaves(apply, params)
    outputs, arithmetic = traced(flat_outputs(function), leaves, inputs, name="apply")
    num_parameters = sum(p.size for p in leaves)
    full_rank = 0 < outputs.size <= num_parameters
    if outputs.size == 0 or num_parameters == 0:
        dtype = jnp.promote_types(outputs.dtype, jnp.float32)
        zero = Estimate(jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.zeros((), bool))
        return KernelEnds(zero, zero)
    # Where the rank is short the singular values of J say no more than K does.
    if method == "svd" and full_rank:
        return _by_svd(arithmetic, apply, params, inputs)
    if method == "matrix_free":
        parts = function, leaves, inputs, outputs, arithmetic, full_rank
        return _matrix_free(*parts, key=key, tol=tol)
    kernel = tangent_kernel(apply, params, inputs)
    ends = dense_ends(kernel, full_rank, arithmetic, tol=tol)
    single = kernel.dtype == jnp.float32 and arithmetic.eps <= jnp.finfo(jnp.float32).eps
    is_small = 4 * outputs.size * num_parameters <= _JACOBIAN_BYTES
    if method == "dense" or not (single and full_rank and is_small):
        return ends
    by_svd = partial(_by_svd, arithmetic, apply)
    return jax.lax.cond(ends.lowest.resolved, lambda *_: ends, by_svd, params, inputs)


def dense_ends(
    kernel: Float[Array, "b c b c"], full_rank: bool, arithmetic: Arithmetic, *, tol: float
) -> KernelEnds:
    """Both ends of a kernel at hand; `full_rank` if its model has b c parameters or more."""
    pairs = extreme_eigenpairs(kernel.reshape(kernel.shape[0] * kernel.shape[1], -1), tol=tol)
    errors = pairs.lower_error, pairs.upper_error
    return _resolved((pairs.smallest[0], pairs.largest), errors, full_rank, arithmetic)


def _matrix_free(function, leaves, inputs, outputs, arithmetic, full_rank, *, key, tol):
    """From Lanczos on products with K, with margins that hold with high probability."""
    with jax.default_matmul_precision("highest"):
        like = jnp.zeros(outputs.shape, outputs.dtype)
        product = flat(tangent_kernel_product(function, leaves, inputs), like)
        # The highest end converges long before the lowest.
        ends = ritz_ends(
            product, like.ravel(), key=key, tol=tol, max_steps=_MAX_STEPS, which="lowest"
        )
    rounding = 2 * arithmetic.rounding(outputs.size) * jnp.abs(ends.values[1])
    return _resolved(tuple(ends.values), tuple(ends.margins + rounding), full_rank, arithmetic)


def _by_svd(arithmetic, apply, params, inputs):
    """From the singular values of J, whose rounding is that of sigma, not of sigma^2."""
    with jax.default_matmul_precision("highest"):
        problem = make_problem(apply, params, inputs, None, "contraction", None)
        jacobian = jnp.concatenate(example_jacobians(problem, inputs), axis=-1)
    flat_jacobian = jacobian.reshape(jacobian.shape[0] * jacobian.shape[1], -1)
    triangle = jnp.linalg.qr(flat_jacobian.T, mode="r")
    sigmas = jnp.linalg.svd(triangle, compute_uv=False)
    low, high = sigmas[-1], sigmas[0]
    slack = arithmetic.rounding(len(triangle)) * high
    errors = slack * (2 * low + slack), slack * (2 * high + slack)
    return KernelEnds(
        estimate(low**2, errors[0], arithmetic, scale=high**2, is_clear=low > 10 * slack),
        estimate(high**2, errors[1], arithmetic),
    )


def _resolved(values, errors, full_rank, arithmetic):
    """Estimates from K itself, whose entries carry rounding of order eps lambda_max."""
    low, high = values
    rounding = 10 * arithmetic.eps * jnp.abs(high)
    errors = [jnp.abs(e) + rounding for e in errors]
    is_clear = full_rank & (low > 100 * arithmetic.eps * high) & jnp.isfinite(high)
    error = jnp.where(full_rank, errors[0], rounding)
    return KernelEnds(
        estimate(low, error, arithmetic, scale=high, is_clear=is_clear),
        estimate(high, errors[1], arithmetic),
    )
