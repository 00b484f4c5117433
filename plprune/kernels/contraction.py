# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel by contraction of per-example Jacobians: slow, general, the reference."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.kernels.problem import Problem
from plprune.kernels.tiles import over_pairs, take
from plprune.types import Inputs

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
_TILE_BYTES = 2**28  # Two tiles of Jacobians stay within half a gigabyte.


def contracted_kernel(problem: Problem, tile: int | None) -> Float[Array, "b r b2 r2"]:
    """K = J J'^T from the Jacobians of `tile` examples at a time.

    Costs c backward passes per example, again for every tile of rows, and ``2 b b' c^2 p``
    operations; holds the kernel and two tiles of ``tile * c * p`` numbers. Where a loop of unknown
    length is in the way of reverse mode, p forward passes replace the c backward ones.
    """

    def summed(left, right):
        parts = contractions(left, right)
        return sum(parts[1:], start=parts[0])

    return _paired(problem, summed, tile)


def leaf_contractions(problem: Problem, tile: int | None) -> list[Float[Array, "b r b2 r2"]]:
    """The kernel of every leaf by itself, with the costs of `contracted_kernel`."""
    return _paired(problem, contractions, tile)


def _paired(problem, combine, tile):
    if tile is None:
        numbers = problem.num_outputs * sum(p.size for p in problem.leaves)
        tile = max(1, _TILE_BYTES // max(1, numbers * problem.dtype.itemsize))
    tile = min(tile, *problem.sizes)

    make = jax.jit(partial(example_jacobians, problem))  # Traced once for all its calls.

    def read(start):
        return make(take(problem.both, start, tile))

    return over_pairs(read, combine, problem.sizes, tile, symmetric=problem.other is None)


def example_jacobians(problem: Problem, inputs: Inputs) -> list[Float[Array, "t r p"]]:
    """Per-example Jacobians of every leaf, or with all outputs in one row for the trace."""
    if not problem.leaves:
        return []
    derivative = jax.jacfwd if problem.forward else jax.jacrev

    def one(example):
        batch = jax.tree.map(lambda a: a[None], example)
        return derivative(lambda p: problem.apply(p, batch)[0])(problem.leaves)

    jacobians = jax.vmap(one)(inputs)
    summed = problem.num_outputs // max(problem.num_seeds, 1)
    return [
        j.reshape(len(j), problem.num_seeds, summed * p.size).astype(problem.dtype)
        for j, p in zip(jacobians, problem.leaves, strict=True)
    ]


def contractions(left: list[Array], right: list[Array]) -> list[Float[Array, "t r u q"]]:
    """Per leaf, the products of two tiles' Jacobians."""
    return [_einsum("trp,uqp->truq", a, b) for a, b in zip(left, right, strict=True)]
