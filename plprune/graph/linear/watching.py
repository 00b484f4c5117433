# SPDX-License-Identifier: Apache-2.0
"""What leaves are multiplied with, seen while a graph is evaluated forward, in loops too."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.graph.linear.origins import origins
from plprune.graph.linear.reading import Reading, readings
from plprune.graph.linear.roles import contracted
from plprune.graph.rules.loops import dealt
from plprune.graph.tracing import Equation, Graph, bind, evaluate, scan_counts


class Power(NamedTuple):
    """What the contractions that read an axis of a leaf are given, summed over them."""

    squares: Float[Array, " n"]  # Mean squares at each position, summed over the uses.
    uses: Float[Array, ""]  # How many contractions those are.


Powers = dict[tuple[int, int], Power]  # By leaf and axis.
Axes = Mapping[int, frozenset[int]]


def reading_powers(graph: Graph, values: Sequence[Any], axes: Axes, *, weighted: bool) -> Powers:
    """Mean squares of the activations that axes of leaves are contracted against.

    One forward pass. The mean is over all positions and examples at which a leaf is multiplied;
    squares of what is summed over together with the axis add up, such as the entries of a head.

    Args:
      graph: From `trace`.
      values: One array per entry of `graph.inputs`.
      axes: Leaf, a position among `graph.inputs`, -> its axes of interest.
      weighted: Whether an activation's square is multiplied by that of the weights that read it.

    Returns:
      Nothing for a leaf that is used otherwise than by plain contractions over all these axes, in
      the graph itself or in a loop that takes the leaf, or a layer of it at each step.
    """
    return _watch(graph, values, axes, weighted)[1]


def _watch(graph, values, axes, weighted) -> tuple[list[Any], Powers]:
    loops = _loops(graph, axes)
    looped = {leaf for own in loops.values() for leaf in own.values()}
    places = readings(graph, {leaf: own for leaf, own in axes.items() if leaf not in looped})
    index_of, found = {id(e): k for k, e in enumerate(graph.equations)}, {}

    def add(key, power):
        old = found.get(key)
        found[key] = power if old is None else Power(*map(jnp.add, old, power))

    def rule(equation, operands):
        index = index_of[id(equation)]
        if index in loops:
            outputs, powers = _scan(equation, operands, loops[index], axes, weighted)
            for key, power in powers.items():
                add(key, power)
            return outputs
        if index in places:
            leaf, reading = places[index]
            for axis in axes[leaf]:
                add((leaf, axis), _power(equation, reading, operands, axis, weighted))
        return bind(equation, operands)

    return evaluate(graph, values, rule), found


def _power(equation: Equation, reading: Reading, operands, axis, weighted) -> Power:
    """Of one contraction."""
    activation, weight = (operands[k] for k in (reading.operand, 1 - reading.operand))
    sums = contracted(equation)
    groups = ((), ())
    if equation.name == "dot_general":
        groups = equation.params["dimension_numbers"][1]
    own, other = ([*groups[k], *sums[k]] for k in (reading.operand, 1 - reading.operand))
    squares = _mean_squares(activation, own, jnp.mean)
    if weighted:
        squares = squares * _mean_squares(weight, other, jnp.sum).astype(squares.dtype)
    place = own.index(reading.dims[axis])
    rest = tuple(k for k in range(squares.ndim) if k != place)
    return Power(jnp.sum(squares, axis=rest), jnp.ones((), squares.dtype))


def _mean_squares(array, kept, average):
    """Squares averaged over all but some dimensions, these in the given order."""
    rest = tuple(d for d in range(array.ndim) if d not in kept)
    means = average(jnp.square(jnp.abs(array)), axis=rest)
    return jnp.transpose(means, [sorted(kept).index(d) for d in kept])


def _loops(graph: Graph, axes: Axes) -> dict[int, dict[int, int]]:
    """Scan -> operands that are leaves, which are used in such a way alone: position -> leaf."""
    found = origins(graph, axes)
    refused = {found[v].leaf for v in graph.outputs if v in found}
    loops: dict[int, dict[int, int]] = {}
    for index, equation in enumerate(graph.equations):
        own = {k: found[v].leaf for k, v in enumerate(equation.inputs) if v in found}
        whole = {k: leaf for k, leaf in own.items() if _enters(graph, equation, k, axes[leaf])}
        refused |= {leaf for k, leaf in own.items() if k not in whole}
        if whole:
            loops[index] = whole
    kept = {
        index: {k: leaf for k, leaf in own.items() if leaf not in refused}
        for index, own in loops.items()
    }
    return {index: own for index, own in kept.items() if own}


def _enters(graph, equation, position, axes) -> bool:
    """Whether a leaf as it is enters a loop, which does not step along its axes of interest."""
    if equation.name != "scan" or equation.inputs[position] not in graph.inputs:
        return False
    consts, carried = scan_counts(equation)
    if position < consts:
        return True
    return position >= consts + carried and 0 not in axes


def _scan(equation: Equation, operands, leaves, axes, weighted):
    """Outputs of a loop, and what its steps are given in all."""
    (body,), (fixed, start, rows) = equation.subgraphs, dealt(equation, operands)
    carried = len(start)
    steps = {k: int(k >= len(fixed) + carried) for k in leaves}
    inner = {k: frozenset(axis - steps[k] for axis in axes[leaf]) for k, leaf in leaves.items()}

    def step(carry, row):
        outputs, powers = _watch(body, [*fixed, *carry, *row], inner, weighted)
        return outputs[:carried], (outputs[carried:], powers)

    options = {name: equation.params[name] for name in ("length", "reverse", "unroll")}
    carry, (stacked, powers) = jax.lax.scan(step, list(start), list(rows), **options)
    found: Powers = {}
    for (k, axis), power in powers.items():
        key, own = (leaves[k], axis + steps[k]), Power(*(jnp.sum(x, axis=0) for x in power))
        found[key] = Power(*map(jnp.add, found[key], own)) if key in found else own
    return [*carry, *stacked], found
