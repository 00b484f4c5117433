# SPDX-License-Identifier: Apache-2.0
"""How each primitive passes on what is known of masked entries."""

import math

from plprune.graph.fills import Facts, Fill, Fills
from plprune.graph.known_values import UndefinedError, elementwise_value
from plprune.graph.label_rules import pad_sources
from plprune.graph.reshaping import common_factors
from plprune.graph.signs import NONNEGATIVE, elementwise_sign, kind_of
from plprune.graph.tracing import Equation

NOTHING: frozenset = frozenset()


def elementwise(fills: Fills, equation: Equation) -> None:
    """Known operands give known results."""
    for output in equation.outputs:
        axes = tuple(_combined(fills, equation, output, d) for d in fills.dims(output))
        wholes = [fills[v].whole for v in equation.inputs]
        try:
            whole = elementwise_value(equation.name, equation.params, wholes, _dtype(fills, output))
        except UndefinedError:
            whole = None
        signs = [fills[v].sign for v in equation.inputs]
        kinds = [kind_of(_dtype(fills, v)) for v in (*equation.inputs, output)]
        sign = elementwise_sign(equation.name, equation.params, signs, kinds)
        fills[output] = Fill(whole, axes, sign)


def _dtype(fills, variable):
    return fills.graph.avals[variable].dtype


def _combined(fills, equation, output, d) -> Facts:
    """Facts along one axis: atoms are sorted by what they make of each operand."""
    out_shape = fills.graph.shape(output)
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
            value = elementwise_value(equation.name, equation.params, values, _dtype(fills, output))
        except UndefinedError:
            fills.pin(atoms, equation, "masking it would divide by zero or take a root of it in {}")
            continue
        if value is not None:
            result[value] = result.get(value, NOTHING) | atoms
    return result


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


def equality(fills: Fills, equation: Equation) -> None:
    """The winner of an argmax is never a masked position."""
    elementwise(fills, equation)
    labels, output = fills.labels, equation.outputs[0]
    for chosen, listed in (equation.inputs, equation.inputs[::-1]):
        if chosen in labels.choices and listed in labels.positions:
            d = labels.positions[listed]
            axes = list(fills[output].axes)
            axes[d] = {0.0: fills.members(output, d)}
            fills[output] = fills[output]._replace(axes=tuple(axes))


def each(fills: Fills, equation: Equation) -> None:
    """Every output is the operand at its place."""
    for source, target in zip(equation.inputs, equation.outputs, strict=True):
        fills[target] = fills[source]


def keep_axes(fills: Fills, equation: Equation) -> None:
    """Entries are selected or reordered along axes: facts stay."""
    for output in equation.outputs:
        fills[output] = fills[equation.inputs[0]]


def transpose(fills: Fills, equation: Equation) -> None:
    """Axes move with their facts."""
    fill = fills[equation.inputs[0]]
    axes = tuple(fill.axes[d] for d in equation.params["permutation"])
    fills[equation.outputs[0]] = fill._replace(axes=axes)


def squeeze(fills: Fills, equation: Equation) -> None:
    """Axes of size 1 go."""
    fill, gone = fills[equation.inputs[0]], equation.params["dimensions"]
    kept = tuple(x for d, x in enumerate(fill.axes) if d not in gone)
    fills[equation.outputs[0]] = fill._replace(axes=kept)


def broadcast_in_dim(fills: Fills, equation: Equation) -> None:
    """New axes know nothing."""
    fill, output = fills[equation.inputs[0]], equation.outputs[0]
    placed = dict(zip(equation.params["broadcast_dimensions"], fill.axes, strict=True))
    fills[output] = fill._replace(axes=tuple(placed.get(d, {}) for d in fills.dims(output)))


def reshape(fills: Fills, equation: Equation) -> None:
    """A merged position contains an atom if one of its parts does; all parts must agree."""
    source, output = equation.inputs[0], equation.outputs[0]
    refinement = common_factors(fills.graph.shape(source), fills.graph.shape(output))
    if refinement is None:
        fills[output] = fills.unknown(output)
        return
    axes = []
    for d, factors in enumerate(refinement.new):
        parts = [i for i, own in enumerate(refinement.old) if set(own) & set(factors)]
        agreed = _agreed([(fills[source], fills.members(source, i), i) for i in parts])
        members = fills.members(output, d)
        axes.append({value: atoms & members for value, atoms in agreed.items()})
    fills[output] = fills[source]._replace(axes=tuple(axes))


def _agreed(parts) -> Facts:
    """Facts that hold in every (fill, atoms along the axis, axis) where an atom occurs."""
    values = {value for fill, _, d in parts for value in fill.axes[d]}
    values |= {fill.whole for fill, _, _ in parts if fill.whole is not None}
    agreed = {}
    for value in values:
        holds, fails = NOTHING, NOTHING
        for fill, members, d in parts:
            holding = members if fill.whole == value else fill.axes[d].get(value, NOTHING) & members
            holds, fails = holds | holding, fails | (members - holding)
        agreed[value] = holds - fails
    return agreed


def concatenate(fills: Fills, equation: Equation) -> None:
    """Every operand in which an atom occurs must agree."""
    along, output = equation.params["dimension"], equation.outputs[0]
    operands = [fills[v] for v in equation.inputs]
    axes = []
    for d in fills.dims(output):
        parts = [
            (f, fills.members(v, d), d) for f, v in zip(operands, equation.inputs, strict=True)
        ]
        if d != along:  # An atom occurs in all operands, as all these axes go together.
            everyone = fills.members(output, d)
            parts = [(f, everyone, d) for f in operands]
        axes.append(_agreed(parts))
    wholes = {f.whole for f in operands}
    whole, sign = wholes.pop() if len(wholes) == 1 else None, min(f.sign for f in operands)
    fills[output] = Fill(whole, tuple(axes), sign)


def pad(fills: Fills, equation: Equation) -> None:
    """Padded entries hold the padding value, the others what they held."""
    source, value = equation.inputs
    output, filler = equation.outputs[0], fills[value]
    axes, padded = [], [(s < 0) for s in pad_sources(fills.labels, equation)]
    for d in fills.dims(output):
        parts = [(fills[source], fills.members(source, d), d)]
        if padded[d].any():
            atoms = frozenset(fills.atoms.members(fills.labels[output][d][padded[d]]))
            parts.append((Fill(filler.whole, ({},) * (d + 1)), atoms, d))
        facts = _agreed(parts)
        if any(p.any() for e, p in enumerate(padded) if e != d):  # Rows of padding cross this axis.
            facts = {v: a for v, a in facts.items() if v == filler.whole}
        axes.append(facts)
    whole = fills[source].whole if fills[source].whole == filler.whole else None
    fills[output] = Fill(whole, tuple(axes), min(fills[source].sign, filler.sign))


def fold(fills: Fills, equation: Equation) -> None:
    """A fold of equal entries is known."""
    known = {"reduce_sum": (0.0, -math.inf), "reduce_prod": (0.0, 1.0)}.get(equation.name)
    for source, output in zip(equation.inputs, equation.outputs, strict=True):
        if 0 in fills.graph.shape(source):  # Of no entries at all.
            fills[output] = fills.unknown(output)
            continue
        whole, axes, sign = fills[source]
        axes = [x for d, x in enumerate(axes) if d not in equation.params["axes"]]
        if known:
            axes = [{v: a for v, a in x.items() if v in known} for x in axes]
            whole = whole if whole in known else None
        fills[output] = Fill(whole, tuple(axes), sign)


def sum_window(fills: Fills, equation: Equation) -> None:
    """Sums along other axes keep zeros."""
    fill = fills[equation.inputs[0]]
    zeros = tuple({0.0: x.get(0.0, NOTHING)} for x in fill.axes)
    whole = 0.0 if fill.whole == 0 else None
    fills[equation.outputs[0]] = Fill(whole, zeros, min(fill.sign, NONNEGATIVE))


def dot_general(fills: Fills, equation: Equation) -> None:
    """A zero row gives a zero row."""
    (left_contracted, right_contracted), (left_batch, right_batch) = equation.params[
        "dimension_numbers"
    ]
    (left, right) = (fills[v] for v in equation.inputs)
    a, b = (tuple({0.0: x.get(0.0, NOTHING)} for x in fill.axes) for fill in (left, right))
    batch = [{0.0: a[i][0.0] | b[j][0.0]} for i, j in zip(left_batch, right_batch, strict=True)]
    free_left = [x for i, x in enumerate(a) if i not in (*left_contracted, *left_batch)]
    free_right = [x for j, x in enumerate(b) if j not in (*right_contracted, *right_batch)]
    whole = 0.0 if 0.0 in (left.whole, right.whole) else None
    sign = min(left.sign, right.sign, NONNEGATIVE)
    fills[equation.outputs[0]] = Fill(whole, (*batch, *free_left, *free_right), sign)


def convolution(fills: Fills, equation: Equation) -> None:
    """A zero kernel slice makes a zero feature."""
    image, kernel = (fills[v] for v in equation.inputs)
    lhs_spec, rhs_spec, out_spec = equation.params["dimension_numbers"]
    axes = list(fills.unknown(equation.outputs[0]).axes)
    axes[out_spec[0]] = {0.0: image.axes[lhs_spec[0]].get(0.0, NOTHING)}
    axes[out_spec[1]] = {0.0: kernel.axes[rhs_spec[0]].get(0.0, NOTHING)}
    whole = 0.0 if 0.0 in (image.whole, kernel.whole) else None
    sign = min(image.sign, kernel.sign, NONNEGATIVE)
    fills[equation.outputs[0]] = Fill(whole, tuple(axes), sign)


def dynamic_update_slice(fills: Fills, equation: Equation) -> None:
    """Both arrays must agree."""
    fills[equation.outputs[0]] = meet(fills[equation.inputs[0]], fills[equation.inputs[1]])


def meet(one: Fill, other: Fill) -> Fill:
    """Facts that hold of both."""
    axes = []
    for x, y in zip(one.axes, other.axes, strict=True):
        values = {*x, *y, one.whole, other.whole} - {None}
        axes.append(
            {v: _holders(x, one.whole, v, y) & _holders(y, other.whole, v, x) for v in values}
        )
    whole = one.whole if one.whole == other.whole else None
    return Fill(whole, tuple(axes), min(one.sign, other.sign))


def _holders(facts, whole, value, other):
    """Atoms known to hold a value; a constant array holds it for every atom of the other."""
    own = facts.get(value, NOTHING)
    return own | other.get(value, NOTHING) if whole == value else own
