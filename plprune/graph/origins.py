# SPDX-License-Identifier: Apache-2.0
"""Which variables are a parameter leaf, moved around but not yet computed with."""

from collections.abc import Iterable

from plprune.graph.parameters import is_structural
from plprune.graph.reshaping import common_factors
from plprune.graph.tracing import Equation, Graph, Origin, Variable


def origins(graph: Graph, leaves: Iterable[int]) -> dict[Variable, Origin]:
    """Origin of every variable that is one of `leaves` through structural primitives only.

    Args:
      graph: From `trace`.
      leaves: Positions among `graph.inputs`.
    """
    found = {}
    for leaf in leaves:
        variable = graph.inputs[leaf]
        axes = tuple(frozenset({axis}) for axis in range(len(graph.shape(variable))))
        found[variable] = Origin(leaf, axes, ())
    extend_origins(graph, found)
    return found


def extend_origins(graph: Graph, found: dict[Variable, Origin]) -> None:
    """Push the origins of some variables of `graph` through its structural equations, in place."""
    for equation in graph.equations:
        if is_structural(graph, equation) and equation.inputs[0] in found:
            origin = found[equation.inputs[0]]
            axes = moved_axes(graph, equation, origin.axes)
            chain = (*origin.equations, equation)
            found[equation.outputs[0]] = Origin(origin.leaf, axes, chain)


def moved_axes(
    graph: Graph, equation: Equation, axes: tuple[frozenset[int], ...]
) -> tuple[frozenset[int], ...]:
    """Per dimension of a structural equation's output: the marks of the operand's dimensions."""
    name, params = equation.name, equation.params
    if name == "transpose":
        return tuple(axes[d] for d in params["permutation"])
    if name == "squeeze":
        return tuple(a for d, a in enumerate(axes) if d not in params["dimensions"])
    if name == "broadcast_in_dim":
        source = dict(zip(params["broadcast_dimensions"], axes, strict=True))
        rank = len(graph.shape(equation.outputs[0]))
        return tuple(source.get(d, frozenset()) for d in range(rank))
    if name == "reshape":
        old, new = (graph.shape(v) for v in (equation.inputs[0], equation.outputs[0]))
        return _reshaped_axes(old, new, axes)
    return axes


def _reshaped_axes(old, new, axes):
    refinement = common_factors(old, new)
    if refinement is None:
        return (frozenset().union(*axes),) * len(new)
    owner = {f: axes[d] for d, factors in enumerate(refinement.old) for f in factors}
    return tuple(frozenset().union(*(owner[f] for f in factors)) for factors in refinement.new)
