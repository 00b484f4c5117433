# SPDX-License-Identifier: Apache-2.0
"""Both ends of kernels that are never formed, from products alone, in memory linear in outputs."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from plprune.compilation import compile_once
from plprune.constants.preconditioning import inverse_roots
from plprune.constants.products import KernelProducts, kernel_products
from plprune.constants.resolution import Arithmetic, estimate, real_leaves, traced
from plprune.independence import batch_size, check_independent, run_where_independent
from plprune.operators import flat_outputs
from plprune.spectra import ritz_ends
from plprune.spectra.davidson import counted_lowest_block, space_size
from plprune.spectra.rows import Rows, on_rows, rows_over
from plprune.types import Apply, Estimate, Inputs, Params

_STEPS_HIGHEST, _STEPS_PROOF = 100, 300  # Of Lanczos; memory is so many vectors.
_GAP = 0.1  # What is proven lies this much below the upper bound, relative to it.


class Progress(NamedTuple):
    """How far the search for the lowest end has come."""

    num_products: int
    lowest: float  # lambda_min(K) is at most this, to rounding.
    fraction: float  # Of the products of this search that are done, a guess in [0, 1].


class MatrixFreeEnds(NamedTuple):
    """Ends of K [b c, b c], unnormalised, and what of them is known."""

    lowest: Estimate  # Resolved where a lower bound was proven.
    highest: Estimate
    lowest_at_most: Float[Array, ""]  # lambda_min is no larger, whatever the iterations did.
    num_products: Int[Array, ""]  # Products with K on one vector, all stages together.
    converged: Bool[Array, ""]  # Whether the search for the lowest end reached its tolerance.


class Problem(NamedTuple):
    """A kernel that is seen through products, as static facts know it."""

    function: Apply  # Of its real leaves alone, with outputs [b, c].
    outputs: jax.ShapeDtypeStruct  # [b, c], of the whole batch.
    arithmetic: Arithmetic
    full_rank: bool  # Whether parameters are no fewer than outputs.


def matrix_free_ends(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    key: PRNGKeyArray,
    tol: float = 1e-2,
    max_products: int = 2000,
    tile: int | None = None,
    mesh: Mesh | None = None,
    report: Callable[[Progress], Any] | None = None,
    independent: bool = False,
) -> MatrixFreeEnds:
    """lambda_min and lambda_max of a tangent kernel that is never formed.

    The lowest end by block Davidson iterations with restarts, preconditioned by the kernels of
    blocks of examples (see `InverseRoots`). Its value is |J'u|^2 of the vector found: an upper
    bound of lambda_min in any case. Whether anything lies .1 of it lower is then asked of a Krylov
    space from a random start, whose answer holds with a probability of at least 99.9 %: where that
    is a no, ``lowest`` is resolved, with the distance to what is proven as its error. Where it is
    not answered, the error is the upper bound. Derived in docs/mathematics/spectra.md.

    Args:
      apply: As for `tangent_kernel`.
      params: Tree of arrays, the same on all devices.
      inputs: Tree of arrays [b, ...].
      key: Draws the starts.
      tol: Relative error of the lowest value at which its search stops, as residuals tell it, far
        on the safe side.
      max_products: Most products on single vectors in that search; the proof takes 300 more at
        most and the highest end 100.
      tile: Examples at a time in a product; chosen by the memory of a gradient if None.
      mesh: Devices, over all of whose axes the examples are split; one device if None.
      report: Called on the host with `Progress` after every block of four products, for people.
        Where several processes run, each calls its own.
      independent: As for `tangent_kernel`.

    Returns:
      Ends without normalisation. ``lowest`` is unresolved also where parameters are fewer than b c
      or it lies below what the dtype resolves, as for `pl_constant`.

    Raises:
      ValueError: as `pl_constant`; fewer than 64 outputs, for which "dense" serves; a number of
        devices that does not divide b; `tile` or `max_products` below 1.

    Cost: about 100 to 500 products, each two gradients' time. Memory of 450 vectors of outputs, the
    preconditioner's (256 MiB, above 262,144 examples 1 KiB per example) and that of a tile; a
    device of a mesh holds its share of the latter two.
    """
    for name, number in (("tile", tile), ("max_products", max_products)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    options = {"tol": tol, "max_products": max_products, "tile": tile, "mesh": mesh}
    if report is None:
        return _kept(apply, params, inputs, key, independent=independent, report=None, **options)
    # A kept program would go on calling the function that it was compiled with.
    check_independent(apply, params, inputs, independent=independent)
    options = options | {"independent": True, "report": report}
    return jax.jit(partial(_found, apply, **options))(params, inputs, key)


def _found(
    apply, params, inputs, key, *, tol, max_products, tile, mesh, report, independent
) -> MatrixFreeEnds:
    rows = rows_over(mesh, batch_size(inputs))
    check_independent(apply, params, inputs, independent=independent)
    function, leaves = real_leaves(apply, params)
    model = flat_outputs(function)
    outputs, arithmetic = traced(model, leaves, inputs, name="apply")
    if outputs.size < (least := math.prod(space_size(1))):
        raise ValueError(f"outputs must be at least {least} in all, got {outputs.size}.")
    full_rank = outputs.size <= sum(p.size for p in leaves)
    problem = Problem(model, outputs, arithmetic, full_rank)

    def ends(whole, own):
        leaves, key = whole
        with jax.default_matmul_precision("highest"):
            products = kernel_products(model, leaves, own, outputs, rows, tile=tile)
            return _ends(problem, leaves, own, products, rows, key, tol, max_products, report)

    return on_rows(ends, mesh)((leaves, key), inputs)


_kept = compile_once("params", "inputs", "key", run=run_where_independent)(_found)


def _ends(problem: Problem, leaves, own, products, rows, key, tol, max_products, report):
    dtype, size = products.dtype, problem.outputs.size
    keys = jax.random.split(key, 4)
    like = jnp.zeros(size, dtype)
    top = ritz_ends(
        lambda v: products.times(v[:, None])[:, 0],
        like,
        key=keys[0],
        tol=min(tol, 1e-4),
        max_steps=_STEPS_HIGHEST,
        which="highest",
    )
    high, rounding = top.values[1], problem.arithmetic.rounding(size)
    highest = estimate(high, top.margins[1] + 2 * rounding * high, problem.arithmetic)
    if not problem.full_rank:  # A null vector exists; no search is needed.
        nothing = jnp.zeros((), dtype)
        lowest = Estimate(nothing, nothing + problem.arithmetic.smallest, jnp.zeros((), bool))
        return MatrixFreeEnds(lowest, highest, nothing, top.num_products, jnp.ones((), bool))

    inverse = inverse_roots(problem.function, leaves, own, problem.outputs.shape[1], key=keys[1])
    columns = space_size(1)[0]
    floor = 2 * problem.arithmetic.eps * high

    def precondition(residuals):
        return rows.gathered(inverse.solve(rows.own(residuals)))

    block, steps = counted_lowest_block(
        products.times,
        precondition,
        precondition(jax.random.normal(keys[2], (size, columns), dtype)),
        1,
        tol=tol,
        floor=floor,
        max_steps=-(-max_products // columns),
        report=None if report is None else partial(_report, report, max_products, columns),
    )
    # From singular values: |J'u| is rounded to eps sigma_max, the quotient only to its square.
    sigma, slack = products.singular_value(block.vectors[:, 0]), rounding * jnp.sqrt(high)
    value, at_most = sigma**2, (sigma + slack) ** 2
    lower, extra = _proven(products, inverse, rows, value, 2 * rounding * high, keys[3])
    resolution = 100 * problem.arithmetic.eps * high
    is_proven = (lower > 0) & (value > resolution) & jnp.isfinite(high)
    error = jnp.maximum(value - lower, at_most - value)
    lowest = estimate(value, error, problem.arithmetic, scale=high, is_clear=is_proven)
    bound = jnp.where(jnp.isfinite(at_most), at_most, jnp.inf)
    lowest = lowest._replace(error=jnp.where(lowest.resolved, lowest.error, bound))
    count = top.num_products + columns * steps + extra
    return MatrixFreeEnds(lowest, highest, at_most, count, block.converged)


def _proven(products: KernelProducts, inverse, rows: Rows, value, rounding, key):
    """A lower bound of lambda_min, or zero, and the products that it took.

    ``R' (K - sigma) R`` has an eigenvalue below zero exactly where K has one below sigma; a Krylov
    space from a start that is random in its coordinates hardly misses it.
    """
    sigma = (1 - _GAP) * value

    def product(vector):
        image = rows.gathered(inverse.times(rows.own(vector[:, None])))
        moved = products.times(image) - sigma * image
        return rows.gathered(inverse.transposed_times(rows.own(moved)))[:, 0]

    like = jnp.zeros(math.prod(products.shape), products.dtype)
    ends = ritz_ends(product, like, key=key, tol=0.3, max_steps=_STEPS_PROOF, which="lowest")
    is_positive = ends.values[0] - ends.margins[0] > 0
    return jnp.where(is_positive, jnp.maximum(sigma - rounding, 0), 0), ends.num_products


def _report(report, max_products, columns, steps, value, error, wanted):
    """Errors fall geometrically, more or less: what is left to be gained tells what is left."""
    done = int(steps) * columns
    gained, left = (
        max(0.0, math.log(max(float(a), 1e-300) / max(float(b), 1e-300)))
        for a, b in ((value, error), (error, wanted))
    )
    fraction = gained / (gained + left) if gained + left > 0 else 0.0
    report(Progress(done, float(value), min(1.0, max(fraction, done / max_products))))
