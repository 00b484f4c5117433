# SPDX-License-Identifier: Apache-2.0
"""Where parameters are used, and what each use adds to the Jacobian of one example.

Adding a perturbation, a tap, to the output of every equation that uses a parameter gives by one
reverse pass the cotangents there; the parameter's Jacobian is a sum over its uses. Where a use is a
sum of outer products the Jacobian stays in that form, which is what makes the kernel cheap.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plprune.graph.factors import Factoring, factoring
from plprune.graph.origins import origins
from plprune.graph.tracing import STRUCTURAL, Graph, bind, evaluate, trace


class OuterProducts(NamedTuple):
    """J[r] = sum over positions s of operand[g, s, i] cotangent[r, g, s, o].

    An integer operand [g, s] is one-hot: row numbers.
    """

    operand: Any  # [g, s, i], or [g, s] integers.
    cotangent: Any  # [r, g, s, o].


class Term(NamedTuple):
    """Parameter leaves whose Jacobian is found together."""

    leaves: tuple[int, ...]  # One, or a weight and the bias added to its product.
    sizes: tuple[int, int, int, int] | None  # Of the outer products: g, s, i, o; None: a Jacobian.
    is_lookup: bool
    num_parameters: int
    uses: tuple["Use", ...]


class Use(NamedTuple):
    """An equation with a parameter among its inputs."""

    equation: int
    positions: tuple[int, ...]  # Inputs that are the leaf, moved around by structural primitives.
    factoring: Factoring | None


class Taps(NamedTuple):
    """The uses of every leaf of a traced function, and the function itself."""

    graph: Graph
    terms: tuple[Term, ...]
    example: Callable[[Sequence[Any], Any, Any], list[Any]]
    output: Any  # Abstract value of the output, [c].


def find_taps(function: Callable, leaves: Sequence[Any], example: Any, *, join: bool) -> Taps:
    """The uses of `leaves` in ``function(leaves, example)``, whose output is one vector [c].

    Args:
      function: Of a list of real arrays and one example (a tree).
      leaves: Arrays or their shapes.
      example: Tree of arrays or their shapes.
      join: Let a bias share the term of the product that it is added to.

    Returns:
      `terms`, and ``example(leaves, example, seeds) -> [OuterProducts | [r, p] array]`` per term,
      for cotangents `seeds` [r, c] of the output.
    """
    graph = trace(function, leaves, example)
    found = origins(graph, range(len(leaves)))
    uses = _uses(graph, found, len(leaves))
    terms = _terms(graph, found, uses, join)

    def run(values, one, seeds):
        return _example_terms(graph, found, terms, [*values, *jax.tree.leaves(one)], seeds)

    return Taps(graph, tuple(terms), run, graph.avals[graph.outputs[0]])


def leaf_is_output(taps: Taps, num_leaves: int) -> bool:
    """Whether a parameter reaches the output without being computed with: no tap sees it."""
    return not set(origins(taps.graph, range(num_leaves))).isdisjoint(taps.graph.outputs)


def uses_dynamic_loop(graph: Graph, num_leaves: int) -> bool:
    """Whether a while loop works on values that depend on parameters: no reverse derivative."""
    moved = set(graph.inputs[:num_leaves])
    for equation in graph.equations:
        if not moved.isdisjoint(equation.inputs):
            if _has_while(equation):
                return True
            moved.update(v for v in equation.outputs if _is_real(graph, v))
    return False


def _has_while(equation):
    inner = (e for body in equation.subgraphs for e in body.equations)
    return equation.name == "while" or any(_has_while(e) for e in inner)


def _is_real(graph, variable):
    return jnp.issubdtype(getattr(graph.avals[variable], "dtype", jnp.int32), jnp.floating)


def _uses(graph, found, num_leaves):
    """Per leaf, the equations that compute with it."""
    uses = [[] for _ in range(num_leaves)]
    for index, equation in enumerate(graph.equations):
        if equation.name in STRUCTURAL and equation.inputs[0] in found:
            continue
        positions = defaultdict(list)
        for position, variable in enumerate(equation.inputs):
            if variable in found:
                positions[found[variable].leaf].append(position)
        shapes = [graph.shape(v) for v in (*equation.inputs, *equation.outputs)]
        for leaf, where in positions.items():
            pure = len(where) == 1 and len(positions) == 1
            form = factoring(equation, where[0], shapes) if pure else None
            uses[leaf].append(Use(index, tuple(where), form))
    return uses


def _terms(graph, found, uses, join):
    """Outer products where all uses of a leaf agree on its layout, else Jacobians."""
    terms, taken = [], set()
    sizes = [_size(graph.shape(v)) for v in graph.inputs[: len(uses)]]
    for leaf, own in enumerate(uses):
        form = _common_factoring(graph, found, own)
        if form is None:
            continue
        group, _, inner, produced = form.sizes
        positions = sum(use.factoring.sizes[1] for use in own)
        bias = _bias(graph, found, uses, leaf) if join and not form.is_lookup else None
        leaves = (leaf,) if bias is None else (leaf, bias)
        taken.update(leaves)
        inner += bias is not None
        count = sum(sizes[k] for k in leaves)
        shape = (group, positions, inner, produced)
        terms.append(Term(leaves, shape, form.is_lookup, count, tuple(own)))
    for leaf, own in enumerate(uses):
        if leaf not in taken and own:
            terms.append(Term((leaf,), None, False, sizes[leaf], tuple(own)))
    return terms


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    return size


def _common_factoring(graph, found, uses):
    forms = {_signature(graph, found, use) for use in uses}
    return uses[0].factoring if len(forms) == 1 and None not in forms else None


def _signature(graph, found, use):
    """What two uses must share for their positions to be joined; None without outer products."""
    if use.factoring is None:
        return None
    variable = graph.equations[use.equation].inputs[use.positions[0]]
    chain = found[variable].equations
    steps = tuple((e.name, graph.shape(e.outputs[0]), _moves(e)) for e in chain)
    replicated = _size(graph.shape(variable)) != _size(
        graph.shape(graph.inputs[found[variable].leaf])
    )
    return None if replicated else (steps, use.factoring.layout, use.factoring.sizes[2:])


def _moves(equation):
    names = ("permutation", "dimensions", "broadcast_dimensions")
    return tuple(equation.params.get(name) for name in names)


def _bias(graph, found, uses, leaf):
    """The leaf that is added, and only added, to every product with `leaf`, if there is one."""
    biases = set()
    for use in uses[leaf]:
        out = graph.equations[use.equation].outputs[0]
        readers = [i for i, e in enumerate(graph.equations) if out in e.inputs]
        if len(readers) != 1 or out in graph.outputs:
            return None
        biases.add(_added_leaf(graph, found, graph.equations[readers[0]], out, use.factoring.roles))
    if len(biases) != 1 or None in biases:
        return None
    (bias,) = biases
    return bias if bias != leaf and len(uses[bias]) == len(uses[leaf]) else None


def _added_leaf(graph, found, equation, product, roles):
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
    once = _size(shape) == _size(graph.shape(graph.inputs[leaf]))
    return leaf if spans and once and graph.shape(equation.outputs[0]) == full else None


def _example_terms(graph, found, terms, values, seeds):
    """The terms of one example: a tapped evaluation, one reverse pass per seed, then the uses."""
    kept = sorted({use.equation for term in terms for use in term.uses})
    place = {id(graph.equations[index]): index for index in kept}
    avals = graph.avals
    taps = {
        index: [
            jnp.zeros(avals[v].shape, avals[v].dtype) if _is_real(graph, v) else None
            for v in graph.equations[index].outputs
        ]
        for index in kept
    }

    def tapped(taps):
        operands = {}

        def rule(equation, inputs):
            outputs = bind(equation, inputs)
            index = place.get(id(equation))
            if index is None:
                return outputs
            operands[index] = inputs
            return [o if t is None else o + t for o, t in zip(outputs, taps[index], strict=True)]

        (output,) = evaluate(graph, values, rule)
        return output, operands

    _, pull, operands = jax.vjp(tapped, taps, has_aux=True)
    cotangents = jax.vmap(lambda seed: pull(seed)[0])(seeds)
    return [_term_value(graph, found, t, values, operands, cotangents) for t in terms]


def _term_value(graph, found, term, values, operands, cotangents):
    if term.sizes is None:
        return _leaf_jacobian(graph, found, term, values, operands, cotangents)
    parts = []
    for use in term.uses:
        form, inputs = use.factoring, operands[use.equation]
        other = inputs[form.other]
        (tap,) = cotangents[use.equation]
        operand = form.operand(other)
        if len(term.leaves) == 2:  # A bias is a weight on an operand that is always one.
            operand = jnp.concatenate([operand, jnp.ones_like(operand[..., :1])], axis=-1)
        cotangent = jax.vmap(form.cotangent, in_axes=(0, None))(tap, other)
        parts.append((operand, cotangent))
    if len(parts) == 1:
        return OuterProducts(*parts[0])
    return OuterProducts(
        jnp.concatenate([p[0] for p in parts], axis=1),
        jnp.concatenate([p[1] for p in parts], axis=2),
    )


def _leaf_jacobian(graph, found, term, values, operands, cotangents):
    """[r, p] of one leaf by the vector-Jacobian products of the equations that use it."""
    (leaf,) = term.leaves

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
    taps = [[c for c in cotangents[use.equation] if c is not None] for use in term.uses]
    (jacobian,) = jax.vmap(pull)(taps)
    return jacobian.reshape(jacobian.shape[0], -1)


def _real_outputs(graph, equation, outputs):
    pairs = zip(equation.outputs, outputs, strict=True)
    return [output for variable, output in pairs if _is_real(graph, variable)]
