# SPDX-License-Identifier: Apache-2.0
"""Arithmetic entry by entry: axes of equal size go together, and so do the examples of a batch.

    e:f32[3,4] = mul c:f32[3,4] d:f32[3,4]

* label: position k of an axis of e goes with position k of that axis of c and of d.
* fill: where c is zero at the positions of a masked node, so is e.
* resize: mul takes what is left of both.
* follow: if the rows of c are the batch, so are those of e, unless d differs from row to row.

A new function of single entries is an entry of `plprune.graph.rules.scalars`.
"""

from functools import partial

from plprune.graph.entries import ANYTHING, AS_IT_IS, Primitive
from plprune.graph.following.combining import combined
from plprune.graph.following.layouts import SAME
from plprune.graph.following.walk import Value, Walk, frozen
from plprune.graph.rules.scalars import SCALARS, Scalar, kind_of
from plprune.graph.shrinking.fills import NOTHING, Facts, Fill, Fills
from plprune.graph.shrinking.known import UndefinedError
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Equation


def label_elementwise(labels: Labels, equation: Equation) -> None:
    """Axes of equal size go together; a size-1 axis is broadcast and stays."""
    ranks = {len(labels.shape(v)) for v in (*equation.inputs, *equation.outputs)}
    if len(ranks - {0}) > 1 or len(labels.shape(equation.outputs[0])) < max(ranks):
        labels.refuse(equation)  # A bitcast to another width.
        return
    for output in equation.outputs:
        axes = []
        for d, size in enumerate(labels.shape(output)):
            same = [labels[v][d] for v in equation.inputs if _same_size(labels, v, output, d)]
            for other in same[1:]:
                labels.unify(same[0], other, equation)
            axes.append(same[0] if same else labels.atoms.fresh(size))
        labels[output] = axes


def _same_size(labels, variable, output, dimension):
    shape, out = labels.shape(variable), labels.shape(output)
    return len(shape) == len(out) and shape[dimension] == out[dimension]


def label_copy(labels: Labels, equation: Equation) -> None:
    """Casts keep the knowledge that an array holds positions of an axis."""
    label_elementwise(labels, equation)
    source, target = equation.inputs[0], equation.outputs[0]
    if source in labels.positions:
        labels.hold_positions(target, labels.positions[source])
    if source in labels.choices:
        labels.hold_choice(target, labels.choices[source])


def label_equality(labels: Labels, equation: Equation) -> None:
    """Comparing the winner of an argmax with all positions ties them to the axis it ran over."""
    label_elementwise(labels, equation)
    for chosen, listed in (equation.inputs, equation.inputs[::-1]):
        if chosen in labels.choices and listed in labels.positions:
            axis = labels[equation.outputs[0]][labels.positions[listed]]
            if len(axis) == len(labels.choices[chosen]):
                labels.unify(axis, labels.choices[chosen], equation)


def fill_elementwise(fills: Fills, equation: Equation, *, scalar: Scalar) -> None:
    """Known operands give known results."""
    dtypes = fills.graph.avals
    for output in equation.outputs:
        axes = tuple(_combined(fills, equation, scalar, output, d) for d in fills.dims(output))
        wholes = [fills[v].whole for v in equation.inputs]
        try:
            whole = scalar.at(equation.params, wholes, dtypes[output].dtype)
        except UndefinedError:
            whole = None
        kinds = [kind_of(dtypes[v].dtype) for v in (*equation.inputs, output)]
        sign = scalar.sign_of(equation.params, [fills[v].sign for v in equation.inputs], kinds)
        fills[output] = Fill(whole, axes, sign)


def _combined(fills, equation, scalar, output, d) -> Facts:
    """Facts along one axis: atoms are sorted by what they make of each operand."""
    out_shape, dtype = fills.graph.shape(output), fills.graph.avals[output].dtype
    operands = []
    for v in equation.inputs:
        shape, fill = fills.graph.shape(v), fills[v]
        aligned = len(shape) == len(out_shape) and shape[d] == out_shape[d]
        operands.append((fill.whole, fill.axes[d] if aligned else {}))
    everyone = NOTHING.union(*(atoms for _, facts in operands for atoms in facts.values()))
    classes = {(): everyone}
    for whole, facts in operands:
        classes = _refined(classes, whole, facts)
    result: Facts = {}
    for values, atoms in classes.items():
        try:
            value = scalar.at(equation.params, values, dtype)
        except UndefinedError:
            causes = _causes(equation, scalar, values, dtype)
            fills.undefined.append((causes, atoms))
            fills.pin(atoms, equation, "masking it would divide by zero or take a root of it in {}")
            continue
        if value is not None:
            result[value] = result.get(value, NOTHING) | atoms
    return result


def _causes(equation, scalar, values, dtype):
    """The operands at fault: without knowing one of them, as a divisor, the result is defined."""
    found = []
    for k, variable in enumerate(equation.inputs):
        try:
            scalar.at(equation.params, [*values[:k], None, *values[k + 1 :]], dtype)
        except UndefinedError:
            continue
        found.append(variable)
    return tuple(found)


def _refined(classes, whole, facts):
    refined = {}
    for values, atoms in classes.items():
        for value, holders in facts.items():
            if atoms & holders:
                refined[(*values, value)] = atoms & holders
                atoms = atoms - holders
        if atoms:
            refined[(*values, whole)] = atoms
    return refined


def fill_equality(fills: Fills, equation: Equation, *, scalar: Scalar) -> None:
    """The winner of an argmax is never a masked position."""
    fill_elementwise(fills, equation, scalar=scalar)
    labels, output = fills.labels, equation.outputs[0]
    for chosen, listed in (equation.inputs, equation.inputs[::-1]):
        if chosen in labels.choices and listed in labels.positions:
            d = labels.positions[listed]
            axes = list(fills[output].axes)
            axes[d] = {0.0: fills.members(output, d)}
            fills[output] = fills[output]._replace(axes=tuple(axes))


def follow_elementwise(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes of equal size go together; scalars and axes of size 1 are repeated."""
    rank = len(walk.shape(equation.outputs[0]))
    ranks = [len(walk.shape(v)) for v in equation.inputs]
    if set(ranks) - {0, rank}:  # A cast to another width.
        return walk.opaque(equation, values)
    roles = [range(n) for n in ranks]
    return combined(walk, equation, values, roles, made=SAME, params=frozen(equation.params))


def pass_each(known: Labels | Fills, equation: Equation) -> None:
    """Of every output is known what is known of the operand at its place."""
    for source, target in zip(equation.inputs, equation.outputs, strict=True):
        known[target] = known[source]


def follow_each(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Outputs are the inputs."""
    del walk, equation
    return list(values)


def _entry(scalar: Scalar, label=label_elementwise, fill=fill_elementwise) -> Primitive:
    fill = partial(fill, scalar=scalar)
    return Primitive(
        label, fill, AS_IT_IS, follow_elementwise, scalar.reads, scalar.linear, scalar.rounds
    )


_EACH = Primitive(pass_each, pass_each, AS_IT_IS, follow_each, ANYTHING, rounds=False)
ENTRIES = {
    **{name: _entry(scalar) for name, scalar in SCALARS.items()},
    **{
        name: _entry(SCALARS[name], label_copy)
        for name in ("convert_element_type", "copy", "stop_gradient")
    },
    "eq": _entry(SCALARS["eq"], label_equality, fill_equality),
    **dict.fromkeys(("optimization_barrier", "device_put", "name"), _EACH),
}
