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
    cotangents, operands = _cotangents(graph, terms, values, seeds)
    return [_term_value(taps, t, values, operands, cotangents) for t in terms]


def _cotangents(graph, terms, values, seeds):
    """Of every tap for every seed, and the operands of the equations asked for."""
    tapped = {use.equation for term in terms for use in term.uses}
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

    def run(taps):
        operands = {}

        def rule(equation, inputs):
            outputs = bind(equation, inputs)
            index = place.get(id(equation))
            if index is not None:
                operands[index] = inputs
            own = taps.get(index, [None] * len(outputs))
            return [o if t is None else o + t for o, t in zip(outputs, own, strict=True)]

        (output,) = evaluate(graph, values, rule)
        return output, operands

    _, pull, operands = jax.vjp(run, zeros, has_aux=True)
    return jax.vmap(lambda seed: pull(seed)[0])(seeds), operands


def _term_value(taps, term, values, operands, cotangents):
    if term.sizes is None:
        return _leaf_jacobian(taps, term, values, operands, cotangents)
    if term.narrow is not None:
        return _shared_products(taps.graph, term, operands, cotangents)
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


def _leaf_jacobian(taps, term, values, operands, cotangents):
    """[r, p] of one leaf by the vector-Jacobian products of the equations that use it."""
    graph, found, (leaf,) = taps.graph, taps.origins, term.leaves

    def used(value):
        outputs = []
        for use in term.uses:
            equation, inputs = graph.equations[use.equation], list(operands[use.equation])
            for position in use.positions:
                moved = value
                for step in found[equation.inputs[position]].equations:
                    (moved,) = bind(step, [moved])
                inputs[position] = moved
            outputs.append(_real_outputs(graph, equation, bind(equation, inputs)))
        return outputs

    pull = jax.vjp(used, values[leaf])[1]
    arrived = [[c for c in cotangents[use.equation] if c is not None] for use in term.uses]
    (jacobian,) = jax.vmap(pull)(arrived)
    return jacobian.reshape(jacobian.shape[0], -1)


def _real_outputs(graph, equation, outputs):
    pairs = zip(equation.outputs, outputs, strict=True)
    return [output for variable, output in pairs if is_real(graph, variable)]
