# SPDX-License-Identifier: Apache-2.0
"""The table of fill rules, and what is known of a masked function's entries."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from plprune.graph import fill_rules, indexing_rules, stacking_rules
from plprune.graph.atoms import Label
from plprune.graph.fill_rules import meet
from plprune.graph.fills import FillRule, Fills
from plprune.graph.label_rules import ELEMENTWISE
from plprune.graph.labels import Labels
from plprune.graph.tracing import Equation, scan_counts


def call(fills: Fills, equation: Equation) -> None:
    """The body sees the operands."""
    (body,) = equation.subgraphs
    _enter(fills, body, [fills[v] for v in equation.inputs])
    for output, inner in zip(equation.outputs, body.outputs, strict=True):
        fills[output] = fills[inner]


def cond(fills: Fills, equation: Equation) -> None:
    """Only what holds in every branch holds afterwards."""
    for branch in equation.subgraphs:
        _enter(fills, branch, [fills[v] for v in equation.inputs[1:]])
    first, *others = equation.subgraphs
    for k, output in enumerate(equation.outputs):
        fill = fills[first.outputs[k]]
        for branch in others:
            fill = meet(fill, fills[branch.outputs[k]])
        fills[output] = fill


def scan(fills: Fills, equation: Equation) -> None:
    """Facts about what is carried must survive a step: repeat until they do."""
    (body,) = equation.subgraphs
    num_consts, num_carry = scan_counts(equation)
    fixed = num_consts + num_carry
    operands = [fills[v] for v in equation.inputs]
    operands[fixed:] = [f._replace(axes=f.axes[1:]) for f in operands[fixed:]]
    while True:
        _enter(fills, body, operands)
        carried = operands[num_consts:fixed]
        after = [fills[v] for v in body.outputs[:num_carry]]
        surviving = [_tidy(meet(x, y)) for x, y in zip(carried, after, strict=True)]
        if surviving == [_tidy(x) for x in carried]:
            break
        operands[num_consts:fixed] = surviving
    for k, (output, inner) in enumerate(zip(equation.outputs, body.outputs, strict=True)):
        fill = fills[inner]
        fills[output] = fill if k < num_carry else fill._replace(axes=({}, *fill.axes))


def _tidy(fill):
    """Without empty facts, so that equality means equality."""
    return fill._replace(axes=tuple({v: a for v, a in x.items() if a} for x in fill.axes))


def _enter(fills, body, operands):
    for variable, fill in zip(body.inputs, operands, strict=True):
        fills[variable] = fill
    fills.run(body)


RULES: dict[str, FillRule] = {
    **dict.fromkeys(ELEMENTWISE, fill_rules.elementwise),
    **dict.fromkeys(
        (
            "slice",
            "split",
            "rev",
            "tile",
            "dynamic_slice",
            "reduce_window_max",
            "reduce_window_min",
        ),
        fill_rules.keep_axes,
    ),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        fill_rules.fold,
    ),
    **dict.fromkeys(("reduce_window_sum", "cumsum"), fill_rules.sum_window),
    **dict.fromkeys(
        ("optimization_barrier", "device_put", "name", "sharding_constraint"), fill_rules.each
    ),
    "stack": stacking_rules.fill_stack,
    "unstack": stacking_rules.fill_unstack,
    "eq": fill_rules.equality,
    "transpose": fill_rules.transpose,
    "squeeze": fill_rules.squeeze,
    "broadcast_in_dim": fill_rules.broadcast_in_dim,
    "reshape": fill_rules.reshape,
    "concatenate": fill_rules.concatenate,
    "pad": fill_rules.pad,
    "dot_general": fill_rules.dot_general,
    "conv_general_dilated": fill_rules.convolution,
    "gather": indexing_rules.fill_gather,
    "dynamic_update_slice": fill_rules.dynamic_update_slice,
    "scan": scan,
    "cond": cond,
    "custom_jvp_call": call,
    "custom_vjp_call": call,
}


def fill(
    labels: Labels,
    masked: Iterable[int],
    *,
    baked: bool,
    closed: Mapping[int, frozenset[Label]] = MappingProxyType({}),
) -> Fills:
    """Facts about every variable of a labelled graph; atoms that masking cannot remove get pinned.

    Args:
      labels: From `label`.
      masked: Positions of the inputs whose slices masking sets to zero.
      baked: Allow neutral sums whose divisor is written into the function.
      closed: Input position -> atoms that masking closes by minus infinity there.
    """
    return Fills(labels, masked, baked=baked, closed=closed, rules=RULES)
