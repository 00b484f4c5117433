# SPDX-License-Identifier: Apache-2.0
"""Both ends of a matrix whose rows lie on several devices, none of which ever holds it.

For use within `jax.shard_map`, as `plprune.spectra.rows` has it. Block k of the rows of every
device comes before block k + 1 of any, and within a block device by device: this order keeps all
devices busy to the end, and "lower" and "upper" are meant in it. The Cholesky factor is written
over the lower half and reads the upper one alone, so that matrix and factor share one memory, and
the next factor needs no copy. Derived in docs/mathematics/spectra.md.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import linalg
from jaxtyping import Array, Bool, Float

from plprune.spectra.certificates import shift_to_factorise
from plprune.spectra.certified import (
    ExtremePairs,
    extreme_pairs,
    highest_block,
    in_units,
    solved_block,
)
from plprune.spectra.davidson import space_size
from plprune.spectra.factors import least_shifted
from plprune.spectra.rows import Rows
from plprune.spectra.scaling import power_of_two, widened

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_BLOCKS, _LEAST = 16, 256  # Blocks of a device's rows; rows of one, where there are enough.
_SEGMENTS = 4  # Programs of one shape each: more waste less arithmetic and compile longer.


def _slice(array, start, shape):
    return jax.lax.dynamic_slice(array, _indices(start), shape)


def _insert(array, part, start):
    return jax.lax.dynamic_update_slice(array, part, _indices(start))


def _indices(start):
    """Of one dtype: loops count in another than devices."""
    return [jnp.asarray(place, jnp.int32) for place in start]


class SplitMatrix(NamedTuple):
    """A symmetric matrix by rows: its upper half and diagonal, and a factor below."""

    entries: Float[Array, "m n"]  # This device's rows.
    diagonal: Float[Array, " n"]  # On every device.


class Layout(NamedTuple):
    """Where things are; all static."""

    rows: Rows
    height: int  # m, of one device's rows.
    block: int  # Rows of a block; it divides m.

    def segments(self) -> Iterator[tuple[int, int, int, int]]:
        """First and last step, first and last row of parts of the order."""
        count = self.height // self.block
        ends = sorted({-(-count * k // _SEGMENTS) for k in range(_SEGMENTS + 1)})
        for start, end in pairwise(ends):
            places = start * self.block, end * self.block
            yield start * self.rows.count, end * self.rows.count, *places

    def place(self, step: Any) -> tuple[Any, Any, Any]:
        """Device, first own row and first column of the block of one step."""
        device, row = step % self.rows.count, step // self.rows.count * self.block
        return device, row, device * self.height + row


def sharded_extreme_eigenpairs(
    own: Float[Array, "m n"], rows: Rows, *, num_smallest: int = 1, tol: float = 1e-6
) -> ExtremePairs:
    """`extreme_eigenpairs` of a positive semidefinite matrix by rows; the same on every device.

    By the iterations and certificates of "cholesky" there, in the matrix's own dtype. Where a
    certificate fails there is no "eigh" to turn to: that end's error is infinite.

    Args:
      own: This device's rows [m, n], consecutive ones of the symmetric whole.
      rows: Over which devices.
      num_smallest: How many of the lowest pairs.
      tol: As for `extreme_eigenpairs`.

    Raises:
      ValueError: fewer rows in all than a search space holds.

    Cost: up to four factors of ``n^3 / 3`` operations in all. A device holds its rows, a sixteenth
    of them as messages, and 200 vectors of n numbers.
    """
    own = widened("own", own)
    size, columns = own.shape[1], space_size(num_smallest)
    if size < columns[0] * columns[1]:
        raise ValueError(f"own must have at least {columns[0] * columns[1]} columns, got {size}.")
    layout = Layout(rows, len(own), block_height(len(own)))
    places = jnp.arange(len(own))
    diagonal = rows.gathered(own[places, rows.place * len(own) + places])
    unit = power_of_two(diagonal)
    matrix = SplitMatrix(own, diagonal)
    return in_units(_solved(matrix, layout, unit, num_smallest, tol), unit)


def block_height(height: int) -> int:
    """Rows of a block: about a sixteenth of a device's, such that they split evenly.

    All of them, which takes twice the memory, where nothing near that divides them.
    """
    wanted = max(_LEAST, height // _BLOCKS)
    fits = [n for n in range(max(1, wanted // 4), wanted + 1) if height % n == 0]
    return max(fits, default=height)


def _solved(matrix, layout, unit, k, tol):
    dtype, size = matrix.entries.dtype, len(matrix.diagonal)
    top = highest_block(partial(multiply, matrix, layout, 1 / unit), size, dtype, tol=tol)
    high = jnp.maximum(-top.values[0], jnp.finfo(dtype).tiny)
    scale = 1 / (unit * high)

    matrix, _ = _shifted_cholesky(matrix, layout, scale)
    bottom = solved_block(
        partial(multiply, matrix, layout, 1 / unit),
        partial(solve, matrix, layout),
        dtype,
        size,
        k,
        tol=tol,
        high=high,
    )
    pairs = extreme_pairs(bottom, top, k)
    # This one first: it waits for the last product with what it writes over.
    matrix, has_bottom = cholesky(matrix, layout, scale, *shift_to_factorise(bottom, high))
    matrix, has_top = cholesky(matrix, layout, -scale, *shift_to_factorise(top, high))
    # Eigenvalues at the level of rounding are as good as zero whatever their certificate says.
    has_bottom = has_bottom | (pairs.smallest[0] <= pairs.slack)
    return pairs._replace(
        lower_error=jnp.where(has_bottom, pairs.lower_error, jnp.inf),
        upper_error=jnp.where(has_top, pairs.upper_error, jnp.inf),
    )


def multiply(
    matrix: SplitMatrix, layout: Layout, scale: Float[Array, ""], vectors: Float[Array, "n q"]
) -> Float[Array, "n q"]:
    """``scale * A v`` from the upper half and the diagonal, each entry read once."""
    rows, r = layout.rows, layout.block
    own = rows.own(vectors)
    images, mirrored = jnp.zeros_like(own), jnp.zeros_like(vectors)
    for first, last, _, end in layout.segments():

        def add(step, carry, end=end):
            images, mirrored = carry
            _, _, column = place = layout.place(step)
            columns = _slice(matrix.entries, (0, column), (end, r))
            kept = jnp.where(_is_above(layout, place, end), columns, 0)
            images = images.at[:end].add(
                _dot(kept, _slice(vectors, (column, 0), (r, own.shape[1])))
            )
            return images, _insert(mirrored, _dot(kept.T, own[:end]), (column, 0))

        images, mirrored = jax.lax.fori_loop(first, last, add, (images, mirrored))
    start = rows.place * layout.height
    placed = _insert(jnp.zeros_like(vectors), images, (start, 0))
    return scale * (rows.summed(mirrored + placed) + matrix.diagonal[:, None] * vectors)


def _is_above(layout, place, end):
    """Which of a device's first rows come before each column of a block, [end, r]."""
    device, row, _ = place
    mine = layout.rows.place
    own, within = jnp.arange(end)[:, None], jnp.arange(layout.block)[None]
    in_block = (own >= row) & (own < row + layout.block)
    before = (mine < device) | ((mine == device) & (own - row < within))
    return jnp.where(in_block, before, own < row)


def _shifted_cholesky(matrix, layout, scale):
    """The factor with the least tried shift that makes the matrix definite."""

    def factorise(last, shift):
        nothing = jnp.zeros((len(matrix.diagonal), 1), shift.dtype)
        return cholesky(last[0], layout, scale, shift, nothing)

    shift = 4 * jnp.finfo(scale.dtype).eps * jnp.ones((), scale.dtype)
    return least_shifted(factorise, lambda found: found[1], (matrix, jnp.zeros((), bool)), shift)


def cholesky(
    matrix: SplitMatrix,
    layout: Layout,
    scale: Float[Array, ""],
    shift: Float[Array, ""],
    update: Float[Array, "n q"],
) -> tuple[SplitMatrix, Bool[Array, ""]]:
    """The factor of ``scale * A + shift + U U'`` over the lower half, and whether there is one.

    Step by step a block of rows is sent to all devices: it holds what the columns below it are
    made of, entries right of its diagonal and finished columns left of it.
    """
    rows, r, m = layout.rows, layout.block, layout.height
    entries, pivot = matrix.entries, jnp.ones((), scale.dtype)
    own_update = rows.own(update)
    for first, last, base, _ in layout.segments():
        height = m - base

        def step_of(step, carry, base=base, height=height):
            entries, _ = carry
            device, row, column = layout.place(step)
            is_owner, place = rows.place == device, row - base
            sent = rows.sent(_slice(entries, (row, 0), (r, entries.shape[1])), device)
            square = _slice(sent, (0, column), (r, r))
            above = jnp.triu(square, 1)
            diagonal = jnp.diag(_slice(matrix.diagonal, (column,), (r,)))
            whole = scale * (above + above.T + diagonal) + shift * jnp.eye(r, dtype=scale.dtype)
            beside = scale * _slice(sent, (0, rows.place * m + base), (r, height)).T
            panel = jnp.where(is_owner, _insert(beside, whole, (place, 0)), beside)
            panel += _dot(own_update[base:], _slice(update, (column, 0), (r, update.shape[1])).T)

            def subtract(earlier, panel):
                _, _, start = layout.place(earlier)
                left = _slice(entries, (base, start), (height, r))
                return panel - _dot(left, _slice(sent, (0, start), (r, r)).T)

            panel = jax.lax.fori_loop(0, step, subtract, panel)
            square = linalg.cholesky(
                rows.sent(_slice(panel, (place, 0), (r, r)), device), symmetrize_input=False
            )
            below = linalg.triangular_solve(square, panel, lower=True, transpose_a=True)
            old = _slice(entries, (base, column), (height, r))
            is_after = ~_is_above(layout, (device, row, column), m)[base:]
            factored = jnp.where(is_owner, _insert(below, square, (place, 0)), below)
            new = jnp.where(is_after, factored, old)
            return _insert(entries, new, (base, column)), square[-1, -1]

        entries, pivot = jax.lax.fori_loop(first, last, step_of, (entries, pivot))
    return matrix._replace(entries=entries), jnp.isfinite(pivot)


def solve(matrix: SplitMatrix, layout: Layout, vectors: Float[Array, "n q"]) -> Float[Array, "n q"]:
    """``(L L')^-1 v``; every device works on its rows of each block of columns."""
    rows, r, q = layout.rows, layout.block, vectors.shape[1]
    steps = layout.height // r * rows.count

    def square_of(place):
        _, row, column = place
        return _slice(matrix.entries, (row, column), (r, r))

    def below(place):
        columns = _slice(matrix.entries, (0, place[2]), (layout.height, r))
        return jnp.where(_comes_after(layout, place), columns, 0)

    def forward(step, carry):
        rest, found = carry
        device, row, column = place = layout.place(step)
        own = _substituted(square_of(place), _slice(rest, (row, 0), (r, q)), transposed=False)
        own = rows.sent(own, device)
        return rest - _dot(below(place), own), _insert(found, own, (column, 0))

    def backward(step, found):
        device, _, column = place = layout.place(steps - 1 - step)
        known = rows.summed(_dot(below(place).T, rows.own(found)))
        rest = _slice(found, (column, 0), (r, q)) - known
        solved = _substituted(square_of(place), rest, transposed=True)
        return _insert(found, rows.sent(solved, device), (column, 0))

    start = rows.own(vectors), jnp.zeros_like(vectors)
    found = jax.lax.fori_loop(0, steps, forward, start)[1]
    return jax.lax.fori_loop(0, steps, backward, found)


def _comes_after(layout, place):
    """Which of a device's rows come after a block, [m, 1]."""
    device, row, _ = place
    own = jnp.arange(layout.height)[:, None]
    return (own >= row + layout.block) | ((own >= row) & (layout.rows.place > device))


def _substituted(square, right, *, transposed):
    # As an upper one by columns, which LAPACK counts by: else all entries are copied to be so.
    return linalg.triangular_solve(
        square.T, right, left_side=True, lower=False, transpose_a=not transposed
    )
