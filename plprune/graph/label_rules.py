# SPDX-License-Identifier: Apache-2.0
"""How each primitive's axes are labelled: arithmetic, moving entries, control flow."""

from math import prod

import numpy as np

from plprune.graph.atoms import UNIT, LabelVector
from plprune.graph.labels import Labels, Reduction
from plprune.graph.parameters import unread
from plprune.graph.reshaping import common_factors
from plprune.graph.tracing import Equation, Variable

ELEMENTWISE = (  # Names in one string: a table of ninety quoted words would bury the rest.
    """add sub mul div max min pow rem atan2 nextafter and or xor not neg sign floor ceil round exp
    exp2 log log1p expm1 tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh logistic erf
    erfc erf_inv lgamma digamma rsqrt sqrt cbrt square integer_pow abs is_finite eq ne lt le gt ge
    select_n clamp convert_element_type stop_gradient copy copy_p add_any real imag conj complex
    reduce_precision population_count clz bitcast_convert_type shift_left
    shift_right_logical shift_right_arithmetic mul_add igamma igammac bessel_i0e bessel_i1e
    """.split()  # noqa: SIM905
)
# What a fold ignores: entries equal to it may be left out.
IDENTITIES = {
    "reduce_sum": 0.0,
    "reduce_max": -np.inf,
    "reduce_min": np.inf,
    "reduce_prod": 1.0,
    "reduce_and": 1.0,
    "reduce_or": 0.0,
    "reduce_xor": 0.0,
    "argmax": -np.inf,
    "argmin": np.inf,
}


def elementwise(labels: Labels, equation: Equation) -> None:
    """Axes of equal size go together; a size-1 axis is broadcast and stays."""
    ranks = {len(labels.shape(v)) for v in (*equation.inputs, *equation.outputs)}
    if len(ranks - {0}) > 1 or len(labels.shape(equation.outputs[0])) < max(ranks):
        return refuse(labels, equation)  # A bitcast to another width.
    for output in equation.outputs:
        axes = []
        for d, size in enumerate(labels.shape(output)):
            same = [labels[v][d] for v in equation.inputs if _same_size(labels, v, output, d)]
            for other in same[1:]:
                labels.unify(same[0], other, equation)
            axes.append(same[0] if same else labels.atoms.fresh(size))
        labels[output] = axes
    _carry_positions(labels, equation)
    return None


def _same_size(labels, variable, output, dimension):
    shape, out = labels.shape(variable), labels.shape(output)
    return len(shape) == len(out) and shape[dimension] == out[dimension]


def _carry_positions(labels, equation):
    """Casts keep the knowledge that an array holds positions of an axis."""
    source, target = equation.inputs[0], equation.outputs[0]
    if equation.name not in ("convert_element_type", "copy", "stop_gradient"):
        return
    if source in labels.positions:
        _hold_positions(labels, target, labels.positions[source])
    if source in labels.choices:
        hold_choice(labels, target, labels.choices[source])


def _hold_positions(labels, variable, axis):
    if _counts(labels, variable, labels.shape(variable)[axis]):
        labels.positions[variable] = axis


def hold_choice(labels: Labels, variable: Variable, axis: LabelVector) -> None:
    """A variable holds a position of an axis, if its dtype can."""
    if _counts(labels, variable, len(axis)):
        labels.choices[variable] = axis


def _counts(labels, variable, size):
    """Whether the dtype tells `size` positions apart."""
    dtype = labels.graph.avals[variable].dtype
    numbers = np.arange(size)
    with np.errstate(all="ignore"):
        return bool((numbers.astype(dtype).astype(numbers.dtype) == numbers).all())


def each(labels: Labels, equation: Equation) -> None:
    """Every output is the operand at its place."""
    for source, target in zip(equation.inputs, equation.outputs, strict=True):
        labels[target] = labels[source]


def equality(labels: Labels, equation: Equation) -> None:
    """Comparing the winner of an argmax with all positions ties them to the axis it ran over."""
    elementwise(labels, equation)
    for chosen, listed in (equation.inputs, equation.inputs[::-1]):
        if chosen in labels.choices and listed in labels.positions:
            axis = labels[equation.outputs[0]][labels.positions[listed]]
            if len(axis) == len(labels.choices[chosen]):
                labels.unify(axis, labels.choices[chosen], equation)


def transpose(labels: Labels, equation: Equation) -> None:
    """Axes move."""
    axes = labels[equation.inputs[0]]
    labels[equation.outputs[0]] = [axes[d] for d in equation.params["permutation"]]


def squeeze(labels: Labels, equation: Equation) -> None:
    """Axes of size 1 go."""
    gone = equation.params["dimensions"]
    axes = [x for d, x in enumerate(labels[equation.inputs[0]]) if d not in gone]
    labels[equation.outputs[0]] = axes
    if equation.inputs[0] in labels.choices:
        labels.choices[equation.outputs[0]] = labels.choices[equation.inputs[0]]


def broadcast_in_dim(labels: Labels, equation: Equation) -> None:
    """Axes move; new and stretched ones can shrink freely, since all their entries agree."""
    source, target = equation.inputs[0], equation.outputs[0]
    shape, old = labels.shape(target), labels.shape(source)
    axes = [None] * len(shape)
    for i, d in enumerate(equation.params["broadcast_dimensions"]):
        if old[i] == shape[d]:
            axes[d] = labels[source][i]
        if labels.positions.get(source) == i:
            labels.positions[target] = d
    labels[target] = [
        labels.atoms.fresh(n) if x is None else x for x, n in zip(axes, shape, strict=True)
    ]
    if source in labels.choices:
        labels.choices[target] = labels.choices[source]


def reshape(labels: Labels, equation: Equation) -> None:
    """Merged axes are products; a split axis turns out to have been one."""
    source, target = equation.inputs[0], equation.outputs[0]
    refinement = common_factors(labels.shape(source), labels.shape(target))
    if refinement is None:
        return refuse(labels, equation)
    factor_labels = {}
    for axis, factors in zip(labels[source], refinement.old, strict=True):
        if len(factors) == 1:
            factor_labels[factors[0]] = axis
        elif factors:
            parts = [labels.atoms.fresh(refinement.sizes[f]) for f in factors]
            factor_labels.update(zip(factors, parts, strict=True))
            labels.unify(axis, labels.atoms.product(parts), equation)
    labels[target] = [
        labels.atoms.product([factor_labels[f] for f in factors]) for factors in refinement.new
    ]
    if source in labels.choices:
        labels.choices[target] = labels.choices[source]
    return None


def rev(labels: Labels, equation: Equation) -> None:
    """Positions are reversed."""
    dims = equation.params["dimensions"]
    axes = labels[equation.inputs[0]]
    labels[equation.outputs[0]] = [x[::-1] if d in dims else x for d, x in enumerate(axes)]


def concatenate(labels: Labels, equation: Equation) -> None:
    """Positions line up one operand after the other."""
    along = equation.params["dimension"]
    operands = [labels[v] for v in equation.inputs]
    axes = list(operands[0])
    for d in range(len(axes)):
        if d == along:
            axes[d] = np.concatenate([axes_of[d] for axes_of in operands])
        else:
            for axes_of in operands[1:]:
                labels.unify(axes[d], axes_of[d], equation)
    labels[equation.outputs[0]] = axes


def split(labels: Labels, equation: Equation) -> None:
    """Positions are dealt out."""
    along, cuts = equation.params["axis"], np.cumsum(equation.params["sizes"])[:-1]
    axes = labels[equation.inputs[0]]
    for output, part in zip(equation.outputs, np.split(axes[along], cuts), strict=True):
        labels[output] = [part if d == along else x for d, x in enumerate(axes)]


def slice_(labels: Labels, equation: Equation) -> None:
    """Positions are selected."""
    labels[equation.outputs[0]] = [
        x[selected]
        for x, selected in zip(labels[equation.inputs[0]], slices(equation), strict=True)
    ]


def slices(equation: Equation) -> list[slice]:
    """Python slices of a `slice` equation, one per dimension."""
    params = equation.params
    starts, stops = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    return [slice(*bounds) for bounds in zip(starts, stops, strides, strict=True)]


def pad(labels: Labels, equation: Equation) -> None:
    """Padded positions are free: every one holds the same value."""
    axes = []
    for x, sources in zip(labels[equation.inputs[0]], pad_sources(labels, equation), strict=True):
        padded = np.append(x, UNIT)[sources]
        new = sources < 0
        if new.any() and len(padded) > 1:
            padded[new] = labels.atoms.fresh(max(2, int(new.sum())))[: int(new.sum())]
        axes.append(padded)
    labels[equation.outputs[0]] = axes


def pad_sources(labels: Labels, equation: Equation) -> list[np.ndarray]:
    """Per dimension of a pad's output: the operand's position, -1 where padded."""
    sources = []
    shape = labels.shape(equation.inputs[0])
    for n, (low, high, interior) in zip(shape, equation.params["padding_config"], strict=True):
        inner = np.full((n, interior + 1), -1)
        inner[:, 0] = np.arange(n)
        inner = inner.ravel()[: max(0, inner.size - interior)]
        grown = np.concatenate([np.full(max(low, 0), -1), inner, np.full(max(high, 0), -1)])
        sources.append(grown[max(-low, 0) : len(grown) - max(-high, 0)])
    return sources


def iota(labels: Labels, equation: Equation) -> None:
    """Every position holds its number in the full array, whatever is removed around it."""
    output = equation.outputs[0]
    labels[output] = [labels.atoms.fresh(n) for n in labels.shape(output)]
    _hold_positions(labels, output, equation.params["dimension"])


def fold(labels: Labels, equation: Equation) -> None:
    """A folded axis may shrink only where its removed entries are neutral: see the second pass."""
    folded = equation.params["axes"]
    for source, target in zip(equation.inputs, equation.outputs, strict=True):
        axes, identity = labels[source], IDENTITIES[equation.name]
        if equation.name == "reduce_and" and labels.graph.avals[source].dtype != np.bool_:
            identity = -1.0  # All bits.
        labels[target] = [x for d, x in enumerate(axes) if d not in folded]
        for d in folded:
            labels.reductions.append(Reduction(equation, ((source, int(d)),), identity))
            if equation.name in ("argmax", "argmin"):
                hold_choice(labels, target, axes[d])
                labels.ranked.append(axes[d])


def fresh_outputs(labels: Labels, equation: Equation) -> None:
    """Outputs that depend on no array: evaluated in full, then cut."""
    for output in equation.outputs:
        labels[output] = [labels.atoms.fresh(n) for n in labels.shape(output)]


def refuse(labels: Labels, equation: Equation) -> None:
    """No rule: nothing that this equation touches can shrink."""
    if not any(prod(labels.shape(v)) > 1 for v in equation.inputs):
        return fresh_outputs(labels, equation)
    option = unread(equation) if labels.has_rule(equation.name) else None
    what = f"no rule for the {option} of {{}}" if option else "no rule for {}"
    for variable in (*equation.inputs, *equation.outputs):
        for x in labels[variable]:
            labels.pin(x, equation, f"{what}; rewrite it with primitives that have one")
    return None
