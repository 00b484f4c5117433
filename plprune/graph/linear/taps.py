# SPDX-License-Identifier: Apache-2.0
"""Where parameters are used, and what each use adds to the Jacobian of one example.

Adding a perturbation, a tap, to the output of every equation that uses a parameter gives by one
reverse pass the cotangents there; the parameter's Jacobian is a sum over its uses. Where a use is a
sum of outer products the Jacobian stays in that form, which is what makes the kernel cheap.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from plprune.graph.linear.biases import added_leaf
from plprune.graph.linear.bottlenecks import Bottleneck, bottleneck
from plprune.graph.linear.origins import Origin, is_structural, origins
from plprune.graph.linear.steady import steady
from plprune.graph.primitives import PRIMITIVES
from plprune.graph.rules.factors import Factoring
from plprune.graph.tracing import Equation, Graph, Variable, all_equations, trace


class Term(NamedTuple):
    """Parameter leaves whose Jacobian is found together."""

    leaves: tuple[int, ...]  # One, or a weight and the bias added to its product.
    sizes: tuple[int, int, int, int] | None  # Of the outer products: g, s, i, o; None: a Jacobian.
    is_lookup: bool  # Rows of a table are gathered: the operand holds their numbers.
    num_parameters: int
    uses: tuple["Use", ...]
    narrow: Bottleneck | None  # Through which the outputs see what is produced, if there is one.
    is_steady: bool = False  # The outputs' derivative in what is produced is that of any example.


class Use(NamedTuple):
    """An equation with a parameter among its inputs."""

    equation: int
    position: int  # Of an input that is the leaf, moved around by structural primitives.
    factoring: Factoring | None  # None too where that is not the only such input.


class Taps(NamedTuple):
    """The uses of every leaf of a traced function, and the function itself."""

    graph: Graph
    origins: dict[Variable, Origin]  # Of the leaves.
    terms: tuple[Term, ...]
    output: Any  # Abstract value of the output, [c].


def find_taps(function: Callable, leaves: Sequence[Any], example: Any, *, join: bool) -> Taps:
    """The uses of `leaves` in ``function(leaves, example)``, whose output is one vector [c].

    Args:
      function: Of a list of real arrays and one example (a tree).
      leaves: Arrays or their shapes.
      example: Tree of arrays or their shapes.
      join: Let a bias share the term of the product that it is added to.
    """
    graph = trace(function, leaves, example)
    found = origins(graph, range(len(leaves)))
    uses = leaf_uses(graph, found, len(leaves))
    terms = _terms(graph, found, uses, join)
    return Taps(graph, found, tuple(terms), graph.avals[graph.outputs[0]])


def leaf_is_output(taps: Taps) -> bool:
    """Whether a parameter reaches the output without being computed with: no tap sees it."""
    return not set(taps.origins).isdisjoint(taps.graph.outputs)


def uses_dynamic_loop(graph: Graph, num_leaves: int) -> bool:
    """Whether a while loop works on values that depend on parameters: no reverse derivative."""
    return any(e.name == "while" for e in _computed(graph, num_leaves))


def uses_complex_numbers(graph: Graph, num_leaves: int) -> bool:
    """Whether complex numbers depend on parameters: taps, which are real, would not see them."""
    results = (v for e in _computed(graph, num_leaves) for v in e.outputs)
    return any(jnp.issubdtype(_dtype(graph, v), jnp.complexfloating) for v in results)


def _computed(graph, num_leaves):
    """Equations on values that depend on parameters, and all those inside of them."""
    moved = set(graph.inputs[:num_leaves])
    for equation in graph.equations:
        if not moved.isdisjoint(equation.inputs):
            yield equation
            for body in equation.subgraphs:
                yield from all_equations(body)
            moved.update(v for v in equation.outputs if _has_derivative(graph, v))


def _dtype(graph, variable):
    return getattr(graph.avals[variable], "dtype", jnp.int32)


def _has_derivative(graph, variable):
    return jnp.issubdtype(_dtype(graph, variable), jnp.inexact)


def is_real(graph: Graph, variable: Variable) -> bool:
    """Whether a variable holds real numbers, which can have a derivative."""
    return jnp.issubdtype(_dtype(graph, variable), jnp.floating)


def leaf_uses(graph: Graph, found: Mapping[Variable, Origin], num_leaves: int) -> list[list[Use]]:
    """Per leaf, the equations that compute with it."""
    uses = [[] for _ in range(num_leaves)]
    for index, equation in enumerate(graph.equations):
        if is_structural(graph, equation) and equation.inputs[0] in found:
            continue
        if not any(is_real(graph, v) for v in equation.outputs):
            continue  # Comparisons and casts to integers have no derivative.
        positions = defaultdict(list)
        for position, variable in enumerate(equation.inputs):
            if variable in found:
                positions[found[variable].leaf].append(position)
        shapes = [graph.shape(v) for v in (*equation.inputs, *equation.outputs)]
        for leaf, where in positions.items():
            pure = len(where) == 1 and len(positions) == 1
            form = factoring(equation, where[0], shapes) if pure else None
            uses[leaf].append(Use(index, where[0], form))
    return uses


def factoring(equation: Equation, position: int, shapes: list[tuple[int, ...]]) -> Factoring | None:
    """The factoring of `equation` in its input number `position`, None where there is none.

    Args:
      equation: Any equation.
      position: Which input is the parameter.
      shapes: Shapes of the inputs, then of the outputs.
    """
    rule = PRIMITIVES.of(equation).linear.factors
    return None if rule is None else rule(equation, position, shapes)


def _terms(graph, found, uses, join):
    """Outer products where all uses of a leaf agree on its layout, else Jacobians."""
    terms, taken, constant = [], set(), steady(graph, len(uses))
    sizes = [_size(graph.shape(v)) for v in graph.inputs[: len(uses)]]
    for leaf, own in enumerate(uses):
        form = _common_factoring(graph, found, own)
        if form is None or 0 in form.sizes:
            continue
        group, _, inner, produced = form.sizes
        positions = sum(use.factoring.sizes[1] for use in own)
        bias = added_leaf(graph, found, uses, leaf) if join and not form.is_lookup else None
        leaves = (leaf,) if bias is None else (leaf, bias)
        taken.update(leaves)
        inner += bias is not None
        count = sum(sizes[k] for k in leaves)
        shape = (group, positions, inner, produced)
        narrow = _bottleneck(graph, own)
        made = {graph.equations[use.equation].outputs[0] for use in own}
        is_steady = not form.is_lookup and made <= constant
        terms.append(Term(leaves, shape, form.is_lookup, count, tuple(own), narrow, is_steady))
    for leaf, own in enumerate(uses):
        if leaf not in taken and own and sizes[leaf]:
            terms.append(Term((leaf,), None, False, sizes[leaf], tuple(own), None))
    return terms


def _bottleneck(graph, uses):
    """Behind the one use of a leaf at several positions."""
    form = uses[0].factoring
    if len(uses) > 1 or form.is_lookup or form.sizes[1] < 2:
        return None
    out = graph.equations[uses[0].equation].outputs[0]
    shape = graph.shape(out)
    produced = [d for d, role in enumerate(form.roles) if role == "o" and shape[d] > 1]
    return bottleneck(graph, out, *produced) if len(produced) == 1 else None


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
    variable = graph.equations[use.equation].inputs[use.position]
    chain = found[variable].equations
    steps = tuple((e.name, graph.shape(e.outputs[0]), _moves(e)) for e in chain)
    replicated = _size(graph.shape(variable)) != _size(
        graph.shape(graph.inputs[found[variable].leaf])
    )
    return None if replicated else (steps, use.factoring.layout, use.factoring.sizes[2:])


def _moves(equation):
    names = ("permutation", "dimensions", "broadcast_dimensions")
    return tuple(equation.params.get(name) for name in names)
