# SPDX-License-Identifier: Apache-2.0
"""What each use of a parameter adds to the Jacobian of one example, from the cotangents at taps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plprune.graph.linear.bottlenecks import shared_derivative
from plprune.graph.linear.taps import Taps, is_real
from plprune.graph.tracing import bind, evaluate


class OuterProducts(NamedTuple):
    """J[r] = sum over positions s of operand[g, s, i] cotangent[r, g, s, o].

    The operand of a lookup is one-hot and holds row numbers [g, s] instead.
    """

    operand: Any  # [g, s, i], or [g, s] integers.
    cotangent: Any  # [r, g, s, o].


class SharedProducts(NamedTuple):
    """J[r] = scales[r, g, o] times the sum over s of operand[g, s, i] cotangent[g, s, o].

    All outputs share one sum over the positions, up to a scale for each produced entry.
    """

    operand: Any  # [g, s, i].
    cotangent: Any  # [g, s, o].
    scales: Any  # [r, g, o].

    def expanded(self) -> OuterProducts:
        """The same with a cotangent for each output."""
        return OuterProducts(self.operand, self.scales[:, :, None] * self.cotangent)


def term_jacobians(taps: Taps, leaves: Sequence[Any], example: Any, seeds: Any) -> list[Any]:
    """Per term its part of the Jacobian of one example: one reverse pass per seed for all.

    Args:
      taps: From `find_taps`.
      leaves: Values of the leaves.
      example: As `find_taps` was given it.
      seeds: Cotangents [r, c] of the output.

    Returns:
      `SharedProducts` for a term with a bottleneck, else `OuterProducts` for one with sizes, else
      an array [r, p].
    """
    graph, terms, values = taps.graph, taps.terms, [*leaves, *jax.tree.leaves(example)]
    cotangents, jacobians, operands = _cotangents(graph, terms, values, seeds)
    return [_term_value(graph, t, operands, cotangents, jacobians) for t in terms]


def _cotangents(graph, terms, values, seeds):
    """Of every tap for every seed, of leaves without taps too, and the operands asked for."""
    # What is no sum of outer products needs no tap: the pass that gives the cotangents of all taps
    # gives its Jacobian, and loops such as a scan over layers are differentiated once.
    whole = {term.leaves[0]: values[term.leaves[0]] for term in terms if term.sizes is None}
    tapped = {use.equation for term in terms if term.sizes for use in term.uses}
    between = [term.narrow.equations for term in terms if term.narrow]
    tapped.update(path[-1] for path in between)
    place = {id(graph.equations[k]): k for k in tapped.union(*between)}
    avals = graph.avals
    zeros = {
        index: [
            jnp.zeros(avals[v].shape, avals[v].dtype) if is_real(graph, v) else None
            for v in graph.equations[index].outputs
        ]
        for index in sorted(tapped)
    }

    def run(taps, whole):
        operands = {}
        inputs = [whole.get(k, value) for k, value in enumerate(values)]

        def rule(equation, operand):
            outputs = bind(equation, operand)
            index = place.get(id(equation))
            if index is not None:
                operands[index] = operand
            own = taps.get(index, [None] * len(outputs))
            return [o if t is None else o + t for o, t in zip(outputs, own, strict=True)]

        (output,) = evaluate(graph, inputs, rule)
        return output, operands

    _, pull, operands = jax.vjp(run, zeros, whole, has_aux=True)
    cotangents, jacobians = jax.vmap(pull)(seeds)
    return cotangents, jacobians, operands


def _term_value(graph, term, operands, cotangents, jacobians):
    if term.sizes is None:
        jacobian = jacobians[term.leaves[0]]
        return jacobian.reshape(len(jacobian), -1)
    if term.narrow is not None:
        return _shared_products(graph, term, operands, cotangents)
    parts = []
    for use in term.uses:
        form, inputs = use.factoring, operands[use.equation]
        (tap,) = cotangents[use.equation]
        cotangent = jax.vmap(form.cotangent, in_axes=(0, None))(tap, inputs[form.other])
        parts.append((_operand(term, form, inputs), cotangent))
    if len(parts) == 1:
        return OuterProducts(*parts[0])
    return OuterProducts(
        jnp.concatenate([p[0] for p in parts], axis=1),
        jnp.concatenate([p[1] for p in parts], axis=2),
    )


def _operand(term, form, inputs):
    operand = form.operand(inputs[form.other])
    if len(term.leaves) == 2:  # A bias is a weight on an operand that is always one.
        ones = jnp.ones((*operand.shape[:-1], 1), operand.dtype)
        operand = jnp.concatenate([operand, ones], axis=-1)
    return operand


def _shared_products(graph, term, operands, cotangents):
    (use,) = term.uses
    form, inputs = use.factoring, operands[use.equation]
    shared = shared_derivative(graph, term.narrow, operands)
    last = term.narrow.equations[-1]
    scales = cotangents[last][graph.equations[last].outputs.index(term.narrow.end)]
    groups, _, _, produced = form.sizes
    return SharedProducts(
        _operand(term, form, inputs),
        form.cotangent(shared, inputs[form.other]),
        scales.reshape(len(scales), groups, produced),
    )
