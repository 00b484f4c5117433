# SPDX-License-Identifier: Apache-2.0
"""Rows in groups, each group multiplied with a matrix of its own: sorted mixtures of experts.

    c:f32[9,5] = ragged_dot_general[...] a:f32[9,4] b:f32[3,4,5] n:i32[3]

* label: positions of a's last axis go with those of b's middle one; rows and groups stay.
* fill: position k may go if a or b is zero there once it is masked; a zero column of b is one of c.
* resize: ragged_dot_general takes what is left of both; it names no sizes.
* follow: a batch that a, b and n share goes on into c; rows in groups are lost.
* linear: b is read along its middle axis.
"""

from collections.abc import Sequence
from typing import Any

from plprune.graph.entries import AS_IT_IS, Linear, Primitive
from plprune.graph.following.combining import Role, combined
from plprune.graph.following.walk import Value, Walk, frozen
from plprune.graph.rules.contracting import Pairs, fill_product
from plprune.graph.shrinking.fills import Fills
from plprune.graph.shrinking.labels import Labels, Reduction
from plprune.graph.tracing import Equation, Graph


def _ragged(graph: Graph, equation: Equation) -> tuple[Pairs, Pairs, int, int] | None:
    """Contracted pairs of dimensions, those behind the result's, the left rows, the right groups.

    None where groups are parts of what is contracted, or of a batch, or differ along other axes.
    """
    numbers = equation.params["ragged_dot_dimension_numbers"]
    contracted, batch = (
        [(int(i), int(j)) for i, j in zip(*pair, strict=True)]
        for pair in numbers.dot_dimension_numbers
    )
    rows, groups = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
    left, right = (
        [d for d in range(len(graph.shape(v))) if d not in [p[k] for p in (*contracted, *batch)]]
        for k, v in enumerate(equation.inputs[:2])
    )
    one_each = len(rows) == len(groups) == 1 and rows[0] in left
    if not one_each or len(graph.shape(equation.inputs[2])) not in (1, 1 + len(batch)):
        return None
    right = [d for d in right if d != groups[0]]
    kept = [*batch, *((i, None) for i in left), *((None, j) for j in right)]
    return contracted, kept, int(rows[0]), int(groups[0])


def label_ragged_dot(labels: Labels, equation: Equation) -> None:
    """As a product of matrices; rows are counted by group, and groups by their place."""
    found = _ragged(labels.graph, equation)
    if found is None:
        labels.refuse(equation)
        return
    contracted, kept, row, group = found
    a, b, counts = (labels[v] for v in equation.inputs)
    for x in (a[row], b[group], counts[-1]):
        labels.pin(x, equation, "{} counts the rows of each group of it")
    for own, (i, _) in zip(counts[:-1], kept, strict=False):  # Batched as both matrices.
        labels.unify(own, a[i], equation)
    for i, j in (pair for pair in (*contracted, *kept) if None not in pair):
        labels.unify(a[i], b[j], equation)
    labels[equation.outputs[0]] = [b[j] if i is None else a[i] for i, j in kept]
    left, right = equation.inputs[:2]
    for i, j in contracted:
        labels.reductions.append(Reduction(equation, ((left, i), (right, j)), 0.0))


def fill_ragged_dot(fills: Fills, equation: Equation) -> None:
    """A zero row gives a zero row, and rows of no group are zero."""
    found = _ragged(fills.graph, equation)
    if found is None:
        fills[equation.outputs[0]] = fills.unknown(equation.outputs[0])
    else:
        fill_product(fills, equation, found[1])


def follow_ragged_dot(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """As a product of matrices; which rows are multiplied with what depends on those before."""
    found = _ragged(walk.graph, equation)
    if found is None:
        return walk.opaque(equation, values)
    contracted, kept, row, group = found
    roles = []
    for side, variable in enumerate(equation.inputs[:2]):
        own: dict[Any, Role] = {pair[side]: place for place, pair in enumerate(kept)}
        own.update({pair[side]: ("contracted", k) for k, pair in enumerate(contracted)})
        own[(row, group)[side]] = ("group",)
        roles.append([own[d] for d in range(len(walk.shape(variable)))])
    counts = len(walk.shape(equation.inputs[2]))
    roles.append([*range(counts - 1), ("group",)])
    names = ("precision", "preferred_element_type", "group_offset")
    params = frozen({name: equation.params.get(name) for name in names})
    return combined(walk, equation, values, roles, how="groups rows along", params=params)


def ragged_dot_sums(equation: Equation) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Dimensions of either matrix that are summed over, and none of the sizes of groups."""
    numbers = equation.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    left, right = (tuple(map(int, dims)) for dims in numbers[0])
    return left, right, ()


ENTRIES = {
    "ragged_dot_general": Primitive(
        label_ragged_dot,
        fill_ragged_dot,
        AS_IT_IS,
        follow_ragged_dot,
        reads="ragged_dot_dimension_numbers",
        linear=Linear(contracts=ragged_dot_sums),
    ),
}
