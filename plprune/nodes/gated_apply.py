# SPDX-License-Identifier: Apache-2.0
"""The gated model, with gates on activations wherever that is possible."""

from collections.abc import Callable

import jax
from jaxtyping import Array

from plprune.graph.linear.reading import readings
from plprune.graph.tracing import bind, evaluate, trace
from plprune.nodes.closing import checked_gates
from plprune.nodes.matching import match_leaves
from plprune.nodes.scaling import along, consuming, factors_by_leaf, per_position, scale_slices
from plprune.types import Apply, Gates, Inputs, NodeGroups, Params

GatedApply = Callable[[Params, Inputs, Gates], Array]


def gated(apply: Apply, groups: NodeGroups) -> GatedApply:
    """``(params, inputs, gates) -> outputs``: the function of `gate`, cheaper to differentiate.

    Equal to ``apply(gate(params, groups, gates), inputs)``, but a gate multiplies the activation at
    the contraction that reads the node. Parameters then enter their layers as they are, and the
    tangent kernel in the ungated parameters can be contracted layer by layer. A leaf that is read
    in any other way (a grouped convolution, a slice, a loop) is scaled instead.

    Args:
      apply: As given to `find_nodes`, or a function of its parameters alone where the groups were
        found on a pair (params, state).
      groups: From `find_nodes`.

    Returns:
      The gated function; it traces `apply` at every call, and raises ValueError for gates that
      `gate` refuses.
    """

    def function(params, inputs, gates):
        factors = factors_by_leaf(groups, checked_gates(gates, groups), consuming)
        return _evaluate(apply, params, inputs, groups, factors)

    return function


def _evaluate(apply, params, inputs, groups, factors):
    graph = trace(apply, params, inputs)
    own = match_leaves(params, groups).positions()
    axes = {
        leaf: frozenset(member.axis for member, _ in factors[path])
        for leaf, path in own.items()
        if path in factors
    }
    places = readings(graph, axes)
    on_activations = {own[leaf] for leaf, _ in places.values()}
    rest = {path: pairs for path, pairs in factors.items() if path not in on_activations}
    index_of = {id(equation): index for index, equation in enumerate(graph.equations)}

    def rule(equation, values):
        place = places.get(index_of.get(id(equation)))
        if place is not None:
            leaf, reading = place
            values = list(values)
            for member, gates in factors[own[leaf]]:
                values[reading.operand] = _scaled(
                    values[reading.operand],
                    per_position(gates, member),
                    reading.dims[member.axis],
                )
        return bind(equation, values)

    leaves = jax.tree.leaves((scale_slices(params, groups, rest), inputs))
    return jax.tree.unflatten(graph.out_tree, evaluate(graph, leaves, rule))


def _scaled(activation, factors, dim):
    return activation * along(factors.astype(activation.dtype), dim, activation.ndim)
