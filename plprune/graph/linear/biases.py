# SPDX-License-Identifier: Apache-2.0
"""Biases: leaves that are added, and only added, to what another leaf produces."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from plprune.graph.linear.origins import Origin
from plprune.graph.tracing import Equation, Graph, Variable


def added_leaf(
    graph: Graph, found: Mapping[Variable, Origin], uses: Sequence[Sequence[Any]], leaf: int
) -> int | None:
    """The leaf that is added, and only added, to every product with `leaf`, if there is one.

    Args:
      graph: From `trace`.
      found: From `origins`.
      uses: Per leaf its `Use`s; those of `leaf` all have a factoring.
      leaf: The weight.
    """
    biases = set()
    for use in uses[leaf]:
        out = graph.equations[use.equation].outputs[0]
        readers = [i for i, e in enumerate(graph.equations) if out in e.inputs]
        if len(readers) != 1 or out in graph.outputs:
            return None
        biases.add(_other_term(graph, found, graph.equations[readers[0]], out, use.factoring.roles))
    if len(biases) != 1 or None in biases:
        return None
    (bias,) = biases
    return bias if bias != leaf and len(uses[bias]) == len(uses[leaf]) else None


def _other_term(graph, found, equation: Equation, product, roles):
    """The leaf in ``product + leaf`` that spans exactly the produced entries, else None."""
    if equation.name not in ("add", "add_any"):
        return None
    others = [v for v in equation.inputs if v != product]
    if len(others) != 1 or others[0] not in found:
        return None
    full, shape = graph.shape(product), graph.shape(others[0])
    leaf = found[others[0]].leaf
    spans = len(shape) == len(full) and all(
        n == (size if role == "o" else 1) for n, size, role in zip(shape, full, roles, strict=True)
    )
    once = prod(shape) == prod(graph.shape(graph.inputs[leaf]))
    return leaf if spans and once and graph.shape(equation.outputs[0]) == full else None
