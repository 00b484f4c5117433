# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel layer by layer, from the factors of each parameter's Jacobian."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.graph.linear.products import term_jacobians
from plprune.kernels.blocks import Factors, block, factors, metrics, num_numbers
from plprune.kernels.problem import Problem
from plprune.kernels.tiles import batch_size, over_pairs, over_tiles, take
from plprune.types import Inputs

_BATCH_BYTES = 2**29  # Factors of a whole batch are kept below this, else made tile by tile.
_FACTOR_BYTES = 2**27  # Factors of a tile.
# Rows of a block: on a CPU what the caches hold, less where arithmetic outweighs memory traffic,
# since small blocks waste less of the symmetry, but one block where the kernel is no larger;
# accelerators want larger ones.
_CPU_ROWS, _CPU_ROWS_HEAVY, _ACCELERATOR_ROWS = 1600, 256, 8192
_HEAVY = 4000  # Operations per entry of the kernel.


def layerwise_kernel(
    problem: Problem, tile: int | None, blocks: int = 1
) -> Float[Array, "b r b2 r2"]:
    """K from the factors of its rows and columns; of one block of layers after the other.

    Per dense layer and pair of examples the cost is ``d_in + c^2 d_out`` multiplications
    [Novak 2022], for a convolution whose channels are pooled before the head
    ``d_out (d_in + c^2)``; symmetry halves both where one batch has several tiles. Holds the
    kernel, the factors of a tile (or of the batch, if small) and a block.
    """
    starts = _starts(problem, blocks)
    if len(starts) == 1:
        return _block_kernel(problem, tile)
    rows, columns = problem.sizes
    shape = (rows, problem.num_seeds, columns, problem.num_seeds)
    # A loop runs one branch at a time; a sum of blocks would have all their factors made at once.
    branches = [
        _branch(problem, tile, start, end)
        for start, end in pairwise((*starts, len(problem.routes)))
    ]
    arrays = problem.leaves, problem.inputs, problem.other

    @jax.checkpoint
    def add(kernel, index):
        return kernel + jax.lax.switch(index, branches, *arrays), None

    return jax.lax.scan(add, jnp.zeros(shape, problem.dtype), jnp.arange(len(starts)))[0]


def _branch(problem, tile, start, end):
    """The kernel of some terms, whose factors are made anew for derivatives."""
    taps = problem.taps._replace(terms=problem.taps.terms[start:end])
    part = problem._replace(taps=taps, routes=problem.routes[start:end])

    @jax.checkpoint
    def of(leaves, inputs, other):
        own = part._replace(leaves=leaves, inputs=inputs, other=other)
        return _block_kernel(own, tile)

    return of


def _block_kernel(problem, tile):
    combine = partial(block, weights=_metrics(problem))
    return _paired(problem, partial(tile_factors, problem), combine, tile)


def _starts(problem, blocks):
    """First terms of contiguous blocks whose factors are about equally large."""
    parts = zip(problem.taps.terms, problem.routes, strict=True)
    numbers = [num_numbers((t,), (route,), problem.num_outputs) for t, route in parts]
    ends, share = list(accumulate(numbers)), max(sum(numbers), 1) / blocks
    place = [min(int(max(end - 1, 0) / share), blocks - 1) for end in ends]
    return [k for k, own in enumerate(place) if not k or own != place[k - 1]]


def term_kernels(problem: Problem, tile: int | None) -> list[Float[Array, "b r b2 r2"]]:
    """The kernels of the single terms, whose sum is K."""

    def make(inputs):
        parts = zip(problem.taps.terms, term_values(problem, inputs), problem.routes, strict=True)
        return [_factors(problem, (t,), [value], (route,)) for t, value, route in parts]

    weights = iter(_metrics(problem))
    own = [[next(weights)] if route == "steady" else [] for route in problem.routes]

    def blocks(left, right):
        return [block(a, b, w) for a, b, w in zip(left, right, own, strict=True)]

    return _paired(problem, make, blocks, tile)


def tile_factors(problem: Problem, inputs: Inputs) -> Factors:
    """The factors of a tile of examples."""
    values = term_values(problem, inputs)
    return _factors(problem, problem.taps.terms, values, problem.routes)


def term_values(problem: Problem, inputs: Inputs) -> list[Any]:
    """What the taps see: one forward pass and c backward passes per example."""
    return jax.vmap(partial(_example_values, problem))(inputs)


def _example_values(problem, example):
    seeds = jnp.eye(problem.num_outputs, dtype=problem.taps.output.dtype)
    return term_jacobians(problem.taps, problem.leaves, example, seeds)


def _factors(problem, terms, values, routes):
    return factors(terms, values, routes, problem.dtype, sums_outputs=problem.sums_outputs)


def _metrics(problem):
    """Of the steady terms, from any example: nothing of it enters what they need."""
    if "steady" not in problem.routes:
        return []
    values = _example_values(problem, jax.tree.map(lambda a: a[0], problem.inputs))
    return metrics(values, problem.routes, problem.dtype, sums_outputs=problem.sums_outputs)


def _paired(problem, make, combine, tile):
    numbers = num_numbers(problem.taps.terms, problem.routes, problem.num_outputs)
    per_example = max(numbers, 1) * problem.dtype.itemsize
    tile = min(_tile(problem, per_example) if tile is None else tile, *problem.sizes)
    read = _reader(make, problem.both, tile, per_example)
    return over_pairs(read, combine, problem.sizes, tile, symmetric=problem.other is None)


def _reader(
    make: Callable, inputs: Inputs, tile: int, per_example: int
) -> Callable[[Any], Factors]:
    """First example of a tile -> its factors, from memory if the whole batch's are small."""
    make = jax.jit(make)  # Traced once for all its calls.
    if batch_size(inputs) * per_example > _BATCH_BYTES:
        return lambda start: make(take(inputs, start, tile))
    shapes = jax.eval_shape(make, take(inputs, 0, tile))
    # As rows of plain numbers: for axes of length one the compiler would copy them all once more.
    whole = over_tiles(lambda part: _flattened(make(part)), inputs, _chunk(batch_size(inputs)))

    def read(start):
        rows = take(whole, start, tile)
        return jax.tree.map(lambda row, s: row.reshape(s.shape), rows, shapes)

    return read


def _flattened(tree):
    return jax.tree.map(lambda a: a.reshape(a.shape[0], -1), tree)


def _chunk(size):
    """About a hundred examples, which fill the cores; more would only hold more memory.

    Dividing the batch evenly saves a copy of all factors.
    """
    return next((n for n in range(min(size, 128), 31, -1) if size % n == 0), min(size, 128))


def _tile(problem, per_example):
    rows = _ACCELERATOR_ROWS
    if jax.default_backend() == "cpu":
        small = max(problem.sizes) * problem.num_seeds <= _CPU_ROWS
        rows = _CPU_ROWS if small or _operations(problem) <= _HEAVY else _CPU_ROWS_HEAVY
    parts = zip(problem.taps.terms, problem.routes, strict=True)
    pairs = (_pair_numbers(t, route, problem.num_seeds, problem.num_outputs) for t, route in parts)
    by_pairs = int((_FACTOR_BYTES / (max(pairs, default=1) * problem.dtype.itemsize)) ** 0.5)
    by_rows = _balanced(rows // problem.num_seeds, max(problem.sizes))
    return max(1, min(by_rows, by_pairs, _FACTOR_BYTES // (2 * per_example)))


def _balanced(tile, size):
    """About `tile`, such that `size` splits evenly."""
    count = max(1, round(size / max(tile, 1)))
    return -(-size // count)


def _operations(problem):
    """Operations per entry of the kernel."""
    parts = zip(problem.taps.terms, problem.routes, strict=True)
    return sum(2 * _length(t, route, problem.num_seeds**2) for t, route in parts)


def _length(term, route, entries):
    """Of the products that make one of the `entries` of a pair of examples."""
    if route == "jacobian":
        return term.num_parameters
    g, s, i, o = term.sizes
    if route == "steady":
        return g * s * i
    return o if route == "gram" else g * o * (1 + i / entries)


def _pair_numbers(term, route, seeds, outputs):
    """Numbers between the products of one pair of examples."""
    if route in ("jacobian", "steady"):
        return 1
    g, s, _, o = term.sizes
    return 2 * g * s**2 * (1 + seeds**2) if route == "gram" else 2 * g * o * (1 + outputs)
