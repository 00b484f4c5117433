# SPDX-License-Identifier: Apache-2.0
"""The lowest eigenpairs of a symmetric operator on blocks of vectors, by block Davidson."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BlockProduct = Callable[[Float[Array, "n q"]], Float[Array, "n q"]]

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_EXTRA = 3
_COLUMNS = 64  # Size of a search space, where the wanted pairs do not ask for more.


class Block(NamedTuple):
    """The lowest Ritz pairs of a search space."""

    values: Float[Array, " q"]  # Ascending.
    vectors: Float[Array, "n q"]  # Orthonormal columns.
    residuals: Float[Array, "n q"]  # A x - theta x.
    converged: Bool[Array, ""]


class _Space(NamedTuple):
    basis: Float[Array, "n m"]  # Orthonormal in its first `used` columns, else zero.
    images: Float[Array, "n m"]
    small: Float[Array, "m m"]  # basis' A basis.
    used: Int[Array, ""]
    block: Block
    steps: Int[Array, ""]
    previous: Float[Array, ""]  # Worst residual when the space was full the last time.
    stalled: Bool[Array, ""]


def space_size(num_pairs: int) -> tuple[int, int]:
    """Columns per block and blocks per search space; more columns than pairs settle ties."""
    columns = num_pairs + _EXTRA
    return columns, max(4, _COLUMNS // columns)


def lowest_block(
    product: BlockProduct,
    precondition: BlockProduct,
    start: Float[Array, "n s"],
    num_pairs: int,
    *,
    tol: float,
    floor: Float[Array, ""],
    max_steps: int,
) -> Block:
    """The `num_pairs` lowest eigenpairs (and three more, less accurate) of a symmetric operator.

    Every step adds the preconditioned residuals of the best Ritz vectors to an orthonormal search
    space and takes the Ritz pairs of the whole. Only `product` decides what is found; an inexact
    `precondition` costs steps, not accuracy. A full space is cut to its lower half. Directions are
    orthogonalised three times, so that where a residual is only rounding, noise takes its place:
    repeated eigenvalues do no harm.

    Args:
      product: Symmetric operator on [n, q].
      precondition: Approximates its inverse; the identity gives block Lanczos.
      start: First directions [n, s], at most a whole space of `space_size`, which n columns hold.
      num_pairs: How many pairs must converge.
      tol: Error of a value by `value_errors`, relative to it, at which a pair has converged.
      floor: Error at which it has in any case.
      max_steps: Most products.

    References:
      [Davidson 1975]; [Saad 2011, ch. 8].
    """
    options = {"tol": tol, "floor": floor, "max_steps": max_steps}
    return counted_lowest_block(product, precondition, start, num_pairs, **options)[0]


def counted_lowest_block(
    product: BlockProduct,
    precondition: BlockProduct,
    start: Float[Array, "n s"],
    num_pairs: int,
    *,
    tol: float,
    floor: Float[Array, ""],
    max_steps: int,
    report: Callable[..., None] | None = None,
) -> tuple[Block, Int[Array, ""]]:
    """`lowest_block` and the number of its products.

    Args:
      product: As for `lowest_block`, like the others but the last.
      precondition: Its approximate inverse.
      start: First directions.
      num_pairs: How many pairs must converge.
      tol: Relative error at which a pair has.
      floor: Error at which it has in any case.
      max_steps: Most products.
      report: Called on the host at every step, while the device goes on, with the number of steps,
        the lowest value, the error by which convergence is told, and the error wanted.
    """
    columns, blocks = space_size(num_pairs)
    tol = max(tol, 50 * float(jnp.finfo(start.dtype).eps))

    def unfinished(space):
        return ~space.block.converged & ~space.stalled & (space.steps < max_steps)

    def looked_at(space):
        block = _ritz(space, columns)
        errors = value_errors(block, num_pairs)
        wanted = jnp.maximum(tol * jnp.abs(block.values[:num_pairs]), floor)
        converged = jnp.all(errors <= wanted)
        if report is not None:
            jax.debug.callback(report, space.steps, block.values[0], errors[0], wanted[0])
        # Without numbers there is nothing to wait for.
        block = block._replace(converged=converged | ~jnp.all(jnp.isfinite(errors)))
        return _watched(space, block, jnp.max(errors))

    def grown(space):
        is_full = space.used == columns * blocks
        roomy = jax.lax.cond(is_full, _cut, lambda s: s, space)
        return _extended(roomy, product, precondition(space.block.residuals))

    def step(space):
        # Looks before it grows, so that nothing but the first extension is compiled twice.
        space = looked_at(space)
        return jax.lax.cond(unfinished(space), grown, lambda s: s, space)

    first = _extended(_empty(start, columns, blocks), product, start)
    last = jax.lax.while_loop(unfinished, step, first)
    return last.block, last.steps


def krylov_basis(
    product: BlockProduct, first: Float[Array, "n q"], count: int
) -> Float[Array, "n m"]:
    """Directions [n, count q] that span 1 to `count` products on a block.

    Orthonormal until the products are exhausted; noise that follows may not be.
    """
    columns = first.shape[1]

    def extend(carry, index):
        basis, last = carry
        last = _orthonormal(basis, product(last))
        basis = jax.lax.dynamic_update_slice_in_dim(basis, last, index * columns, axis=1)
        return (basis, last), None

    basis = jnp.zeros((len(first), count * columns), first.dtype)
    return jax.lax.scan(extend, (basis, first), jnp.arange(count))[0][0]


def value_errors(block: Block, num_pairs: int) -> Float[Array, " k"]:
    """How far below each of the first `num_pairs` values an eigenvalue may lie.

    The residual, or the least of `gap_bounds` where that is less. Both take the block for the
    lowest end of the spectrum, which only a certificate can show.
    """
    lengths = jnp.linalg.norm(block.residuals, axis=0)
    by_gap = jax.vmap(lambda pair: jnp.min(gap_bounds(block, pair)[0], initial=jnp.inf))
    return jnp.minimum(lengths[:num_pairs], by_gap(jnp.arange(num_pairs)))


def gap_bounds(
    block: Block, pair: int | Int[Array, ""] = 0
) -> tuple[Float[Array, " gaps"], Float[Array, " gaps"]]:
    """What each gap after the first j values says of one pair's error, and half of the gap.

    With residuals R_j of the first j vectors, and beta half-way from the value theta to the next
    one less its residual, ``|R_j|^2 / (beta - theta)`` if nothing lies below beta off the j
    vectors: derived in docs/mathematics/spectra.md. Infinite without a gap.
    """
    lengths, values = jnp.linalg.norm(block.residuals, axis=0), block.values
    half_gaps = ((values - lengths)[1:] - values[pair]) / 2
    safe = jnp.where(half_gaps > 0, half_gaps, 1)
    squares = jnp.cumsum(lengths**2)[:-1]
    return jnp.where(half_gaps > 0, squares / safe, jnp.inf), half_gaps


def _empty(start, columns, blocks):
    """A search space without directions."""
    wide = jnp.zeros((len(start), columns * blocks), start.dtype)
    narrow, small = wide[:, :columns], wide[: columns * blocks]
    no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    block = Block(narrow[0], narrow, narrow, no)
    return _Space(wide, wide, small, zero, block, zero, jnp.full((), jnp.inf, start.dtype), no)


def _extended(space, product, directions):
    """The space with one block more."""
    insert = jax.lax.dynamic_update_slice_in_dim
    new = _orthonormal(space.basis, directions)
    image = product(new)
    basis = insert(space.basis, new, space.used, axis=1)
    images = insert(space.images, image, space.used, axis=1)
    side = _dot(basis.T, image)
    small = insert(space.small, side, space.used, axis=1)
    small = insert(small, side.T, space.used, axis=0)
    used = space.used + directions.shape[1]
    return space._replace(basis=basis, images=images, small=small, used=used)


def _ritz(space, columns):
    """The lowest Ritz pairs."""
    rotation = _small_pairs(space)[1][:, :columns]
    vectors, images = _dot(space.basis, rotation), _dot(space.images, rotation)
    # The quotients are more accurate than the small matrix's eigenvalues, whose order they keep
    # but for rounding.
    squares = jnp.sum(vectors**2, axis=0)
    values = jnp.sum(vectors * images, axis=0) / jnp.where(squares > 0, squares, 1)
    values = jax.lax.cummax(values)
    residuals = images - vectors * values[None]
    return Block(values, vectors, residuals, jnp.zeros((), bool))


def _small_pairs(space):
    """Eigenpairs of the small matrix, those of unused columns above all others."""
    is_used = jnp.arange(len(space.small), dtype=space.used.dtype) < space.used
    above = 2 * jnp.linalg.norm(space.small) + 1
    small = (space.small + space.small.T) / 2 + jnp.diag(jnp.where(is_used, 0, above))
    return jnp.linalg.eigh(small)


def _cut(space):
    """The lower half of a full space."""
    columns = len(space.block.values)
    kept = len(space.small) // (2 * columns) * columns
    values, rotation = _small_pairs(space)
    keeps = jnp.arange(len(values)) < kept
    rotation = jnp.where(keeps[None], rotation, 0)
    return space._replace(
        basis=_dot(space.basis, rotation),
        images=_dot(space.images, rotation),
        small=jnp.diag(jnp.where(keeps, values, 0)),
        used=jnp.full_like(space.used, kept),
    )


def _watched(space, block, worst):
    """The space with its Ritz pairs; stalled where a whole filling of it has gained nothing."""
    is_full = space.used == len(space.small)
    return space._replace(
        block=block,
        steps=space.steps + 1,
        previous=jnp.where(is_full, worst, space.previous),
        stalled=is_full & (worst >= space.previous),
    )


def _orthonormal(basis, block):
    """An orthonormal block orthogonal to `basis`; three passes, as noise needs one more."""

    def once(_, block):
        return jnp.linalg.qr(block - _dot(basis, _dot(basis.T, block)))[0]

    return jax.lax.fori_loop(0, 3, once, block)
