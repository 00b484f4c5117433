# SPDX-License-Identifier: Apache-2.0
"""Both ends of the tangent kernel's spectrum, by the method asked for, with errors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.compilation import are_concrete, compile_once, recall
from plprune.constants.matrix_free import matrix_free_ends
from plprune.constants.resolution import Arithmetic, estimate, of_dtypes, real_leaves, traced
from plprune.independence import batch_size, check_independent, run_where_independent
from plprune.kernels import tangent_kernel
from plprune.kernels.contraction import example_jacobians
from plprune.kernels.problem import make_problem
from plprune.operators import flat, flat_outputs, tangent_kernel_product
from plprune.spectra import extreme_eigenpairs, ritz_ends
from plprune.spectra.rows import on_rows, rows_over
from plprune.spectra.sharded import sharded_extreme_eigenpairs
from plprune.types import Apply, Estimate, Inputs, Params

METHODS = ("auto", "dense", "svd", "matrix_free")
_MAX_STEPS = 1000  # Up to so many outputs a Krylov space may be all there is, and proves more.
_SMALL_SHARDED = 640  # Up to so many, every device may do all the work.
_TOL_LARGE = 1e-3  # Beyond, what is proven is coarser than values this far off.
_JACOBIAN_BYTES = 2**26  # Up to here "auto" may turn to the singular values of the whole Jacobian.


class KernelEnds(NamedTuple):
    """lambda_min and lambda_max of K [b c, b c], unnormalised, neither ever rounding noise."""

    lowest: Estimate
    highest: Estimate


class Plan(NamedTuple):
    """What shapes decide: which ways are open, and in which arithmetic."""

    outputs: jax.ShapeDtypeStruct  # [b, c].
    arithmetic: Arithmetic
    num_parameters: int

    @property
    def full_rank(self) -> bool:
        """Whether the kernel may have full rank: there are no fewer parameters than outputs."""
        return 0 < self.outputs.size <= self.num_parameters

    @property
    def may_turn_to_svd(self) -> bool:
        """Whether singular values resolve more than the kernel, and the Jacobian is small."""
        single = float(jnp.finfo(jnp.float32).eps)
        wide = jnp.dtype(self.outputs.dtype) == jnp.float64 or self.arithmetic.eps > single
        is_small = 4 * self.outputs.size * self.num_parameters <= _JACOBIAN_BYTES
        return self.full_rank and is_small and not wide


def _plan(apply, params, inputs) -> Plan:
    function, leaves = real_leaves(apply, params)
    outputs, arithmetic = traced(flat_outputs(function), leaves, inputs, name="apply")
    return Plan(outputs, arithmetic, sum(p.size for p in leaves))


def kernel_ends(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    method: str,
    key: PRNGKeyArray | None,
    tol: float,
    independent: bool,
    mesh: Mesh | None = None,
) -> KernelEnds:
    """Both ends; see `pl_constant` for the arguments and what is resolved.

    In a plain call the kernel, its ends and the singular values, if they are wanted at all, are
    programs of their own: another model of as many outputs shares the second.
    """
    _check(method, key, mesh)
    rows_over(mesh, batch_size(inputs))  # Refuses what does not split.
    model = {"apply": apply, "params": params, "inputs": inputs}
    plan = recall(_plan, {"apply": apply}, {"params": params, "inputs": inputs})
    if plan.outputs.size == 0 or plan.num_parameters == 0:
        dtype = jnp.promote_types(plan.outputs.dtype, jnp.float32)
        zero = Estimate(jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.zeros((), bool))
        return KernelEnds(zero, zero)
    # Where the rank is short the singular values of J say no more than K does.
    if method == "svd" and plan.full_rank:
        return _by_svd(**model, arithmetic=plan.arithmetic, independent=independent)
    if method == "matrix_free" and plan.outputs.size > _MAX_STEPS:
        tol = max(tol, _TOL_LARGE)
        found = matrix_free_ends(**model, key=key, tol=tol, mesh=mesh, independent=independent)
        return KernelEnds(found.lowest, found.highest)
    if method == "matrix_free":
        return _matrix_free(**model, key=key, plan=plan, tol=tol, independent=independent)
    if mesh is not None and plan.outputs.size > _SMALL_SHARDED:
        return _from_rows(**model, plan=plan, tol=tol, mesh=mesh, independent=independent)
    return _from_kernel(model, plan, method, tol, independent)


def _check(method, key, mesh):
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if method == "matrix_free" and key is None:
        raise ValueError("key must be given for method 'matrix_free', got None.")
    if mesh is not None and method == "svd":
        raise ValueError(
            "method must not be 'svd' with a mesh, which the whole Jacobian is not on."
        )


def _from_kernel(model, plan: Plan, method, tol, independent) -> KernelEnds:
    """The ends of the kernel, then for "auto" the singular values where they tell more."""
    if not are_concrete((model["params"], model["inputs"])):
        # Below, branches see no values that could decide: once here, for all of them.
        check_independent(**model, independent=independent)
        independent = True
    kernel = tangent_kernel(**model, independent=independent)
    ends = dense_ends(kernel, plan.full_rank, plan.arithmetic, tol=tol)
    if method != "auto" or not plan.may_turn_to_svd:
        return ends

    def by_svd():
        return _by_svd(**model, arithmetic=plan.arithmetic, independent=True)

    if are_concrete(ends):
        return ends if ends.lowest.resolved else by_svd()
    return jax.lax.cond(ends.lowest.resolved, lambda: ends, by_svd)


@compile_once("kernel")
def dense_ends(
    kernel: Float[Array, "b c b c"],
    full_rank: bool,
    arithmetic: Arithmetic | None = None,
    *,
    tol: float,
) -> KernelEnds:
    """Both ends of a kernel at hand.

    Args:
      kernel: From `tangent_kernel`.
      full_rank: Whether its model has b c parameters or more.
      arithmetic: That the model computes in; by default that of the kernel's dtype.
      tol: As for `pl_constant`.
    """
    arithmetic = arithmetic or of_dtypes([kernel.dtype])
    pairs = extreme_eigenpairs(kernel.reshape(kernel.shape[0] * kernel.shape[1], -1), tol=tol)
    errors = pairs.lower_error, pairs.upper_error
    return _resolved((pairs.smallest[0], pairs.largest), errors, full_rank, arithmetic)


@compile_once("params", "inputs", run=run_where_independent)
def _from_rows(apply, params, inputs, *, plan: Plan, tol, mesh, independent) -> KernelEnds:
    """The ends of a kernel whose rows stay on the devices that compute them.

    Kernel and ends are one program, so that no other copy of the kernel outlives its making.
    """
    check_independent(apply, params, inputs, independent=independent)
    rows = rows_over(mesh, batch_size(inputs))

    def ends(whole, own):
        params, inputs = whole
        kernel = tangent_kernel(apply, params, own, inputs, independent=True)
        height = kernel.shape[0] * kernel.shape[1]
        pairs = sharded_extreme_eigenpairs(kernel.reshape(height, -1), rows, tol=tol)
        values, errors = (pairs.smallest[0], pairs.largest), (pairs.lower_error, pairs.upper_error)
        found = _resolved(values, errors, plan.full_rank, plan.arithmetic)
        # Without a certificate there are bounds still: no eigenvalue is negative.
        low, most = found.lowest, pairs.smallest[0] + pairs.slack
        error = jnp.where(
            low.resolved | ~jnp.isfinite(most), low.error, jnp.minimum(low.error, most)
        )
        return KernelEnds(low._replace(error=error), found.highest)

    return on_rows(ends, mesh)((params, inputs), inputs)


@compile_once("params", "inputs", "key", run=run_where_independent)
def _matrix_free(apply, params, inputs, *, key, plan, tol, independent):
    """From Lanczos on products with K, with margins that hold with high probability.

    For kernels that are small enough for whole Krylov spaces.
    """
    check_independent(apply, params, inputs, independent=independent)
    function, leaves = real_leaves(apply, params)
    outputs, arithmetic = plan.outputs, plan.arithmetic
    with jax.default_matmul_precision("highest"):
        like = jnp.zeros(outputs.shape, outputs.dtype)
        product = flat(tangent_kernel_product(function, leaves, inputs, independent=True), like)
        # The highest end converges long before the lowest.
        ends = ritz_ends(
            product, like.ravel(), key=key, tol=tol, max_steps=_MAX_STEPS, which="lowest"
        )
    rounding = 2 * arithmetic.rounding(outputs.size) * jnp.abs(ends.values[1])
    errors = tuple(ends.margins + rounding)
    return _resolved(tuple(ends.values), errors, plan.full_rank, arithmetic)


@compile_once("params", "inputs", run=run_where_independent)
def _by_svd(apply, params, inputs, *, arithmetic, independent):
    """From the singular values of J, whose rounding is that of sigma, not of sigma^2."""
    with jax.default_matmul_precision("highest"):
        problem = make_problem(
            apply, params, inputs, None, "contraction", None, independent=independent
        )
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
