# SPDX-License-Identifier: Apache-2.0
"""Which tables a function's integer inputs are looked up in."""

from collections.abc import Iterable, Iterator

import jax.numpy as jnp

from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Equation, Graph, Variable

# Values stay the positions that came in, up to the usual wrapping of negative ones.
_PASSING = {name for name, entry in PRIMITIVES.items() if entry.linear.moves} | {
    "select_n",
    "add",
    "max",
    "min",
    "clamp",
    "concatenate",
    "slice",
    "dynamic_slice",
    "pad",
    "sort",
}
Sources = dict[Variable, frozenset[int]]  # Variable -> positions of the inputs that it repeats.


def index_bounds(graph: Graph) -> list[int | None]:
    """Per input leaf, the size of the smallest table that it indexes; None where it indexes none.

    A comparison with every entry of an axis (a one-hot vector) counts as a table of its size where
    nothing is gathered. Integers that pass through other arithmetic are not followed.
    """
    first = len(graph.paths[0])
    sources = {
        v: frozenset([k])
        for k, v in enumerate(graph.inputs[first:])
        if jnp.issubdtype(graph.avals[v].dtype, jnp.integer)
    }
    tables = list(_tables(graph, sources))
    bounds = []
    for k in range(len(graph.inputs) - first):
        gathered = [size for own, size, certain in tables if k in own and certain]
        compared = [size for own, size, certain in tables if k in own and not certain]
        bounds.append(min(gathered) if gathered else max(compared, default=None))
    return bounds


def _tables(graph: Graph, sources: Sources) -> Iterator[tuple[frozenset[int], int, bool]]:
    """(inputs, size, whether positions beyond it are an error) of every lookup."""
    for equation in graph.equations:
        read = [sources.get(v, frozenset()) for v in equation.inputs]
        if equation.name == "gather" and read[1]:
            yield read[1], _rows(graph, equation), True
        elif equation.name == "eq" and any(read):
            yield frozenset().union(*read), max(graph.shape(equation.outputs[0]), default=1), False
        elif equation.subgraphs:
            yield from _inside(equation, read, sources)
        elif equation.name in _PASSING and any(read):
            sources.update(dict.fromkeys(equation.outputs, frozenset().union(*read)))


def _rows(graph: Graph, equation: Equation) -> int:
    """How many positions a gather tells apart; a window as long as its axis can lie at one only."""
    shape, sizes = graph.shape(equation.inputs[0]), equation.params["slice_sizes"]
    looked_up = equation.params["dimension_numbers"].start_index_map
    return min((shape[d] for d in looked_up if sizes[d] < shape[d]), default=1)


def _inside(equation: Equation, read: Iterable[frozenset[int]], sources: Sources):
    """Lookups in the bodies whose inputs are the call's own, from the last one backwards."""
    for body in equation.subgraphs:
        pairs = zip(reversed(body.inputs), reversed(list(read)), strict=False)
        sources.update(dict(pairs))
        yield from _tables(body, sources)
        passed = (sources.get(v, frozenset()) for v in body.outputs)
        sources.update(zip(equation.outputs, passed, strict=False))
