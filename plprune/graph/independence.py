# SPDX-License-Identifier: Apache-2.0
"""Whether the examples of a batch influence each other, read off the graph.

The batch axis is followed through the equations. A reduction, contraction or scan over it mixes
examples; where it cannot be followed nothing is claimed.
"""

# A label that has an axis asked for is a batch, and no scan has fewer than zero carries:
# pyright: reportOptionalMemberAccess=false, reportPossiblyUnboundVariable=false

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax

from plprune.graph.tracing import Equation, Graph, scan_counts, trace

_ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "conj", "convert_element_type", "copy", "copy_p", "cos", "cosh",
    "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge",
    "gt", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt",
    "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow", "real",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "xor",
})  # fmt: skip
_CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
_INLINE = frozenset({"custom_jvp_call", "custom_vjp_call"})


class Batch(NamedTuple):
    """The batch runs along `axis`, one example every `inner` entries."""

    axis: int
    inner: int


LOST = Batch(-1, 0)  # Depends on the batch in a way not followed.


class MixedError(Exception):
    """An equation lets entries influence each other across the axis that is followed."""


def mixing(function: Callable, params: Any, inputs: Any) -> str | None:
    """Why examples of `inputs` influence each other's outputs, None where no reason is seen.

    Args:
      function: ``(params, inputs) -> [b, c]``.
      params: Tree of arrays or their shapes.
      inputs: Tree of arrays [b, ...] or their shapes.
    """
    size = jax.tree.leaves(inputs)[0].shape[0]
    if size < 2:
        return None
    graph = trace(function, params, inputs)
    count = len(jax.tree.leaves(params))
    labels = [None] * count + [Batch(0, 1)] * (len(graph.inputs) - count)
    try:
        (out,) = _follow(graph, labels, size)
    except MixedError as found:
        return str(found)
    if out not in (None, LOST, Batch(0, 1)):
        return "the leading axis of the outputs is not the batch"
    return None


def _follow(graph: Graph, labels: list[Batch | None], size: int) -> list[Batch | None]:
    """Labels of the graph's outputs from those of its inputs."""
    known = dict(zip(graph.inputs, labels, strict=True))
    for equation in graph.equations:
        own = [known.get(v) for v in equation.inputs]
        outputs = labels_after(graph, equation, own, size)
        known.update(zip(equation.outputs, outputs, strict=True))
    return [known.get(v) for v in graph.outputs]


def labels_after(
    graph: Graph, equation: Equation, labels: list[Batch | None], size: int
) -> list[Batch | None]:
    """Where the batch runs in an equation's outputs; None where they do not depend on it.

    Raises:
      MixedError: entries of different examples meet.
    """
    count = len(equation.outputs)
    if all(label is None for label in labels):
        return [None] * count
    if equation.name in _INLINE:
        return _follow(equation.subgraphs[0], labels, size)
    if equation.name == "cond":
        branches = [_follow(body, labels[1:], size) for body in equation.subgraphs]
        joined = [_joined(options) for options in zip(*branches, strict=True)]
        return joined if labels[0] is None else [LOST] * count
    if equation.name == "scan":
        return _scan(equation, labels, size)
    if LOST in labels:
        return [LOST] * count
    rule = _RULES.get(equation.name, _rule_by_family(equation.name))
    return [rule(graph, equation, labels, size)] * count


def _joined(options):
    distinct = {label for label in options if label is not None}
    return LOST if len(distinct) > 1 else next(iter(distinct), None)


def _scan(equation, labels, size):
    consts, carries = scan_counts(equation)
    xs = [_dropped(label, (0,)) for label in labels[consts + carries :]]
    carry = labels[consts : consts + carries]
    for _ in range(carries + 1):
        out = _follow(equation.subgraphs[0], [*labels[:consts], *carry, *xs], size)
        new = [_joined(pair) for pair in zip(carry, out[:carries], strict=True)]
        if new == carry:
            break
        carry = new
    ys = [y if y in (None, LOST) else Batch(y.axis + 1, y.inner) for y in out[carries:]]
    return [*carry, *ys]


def _dropped(label, axes):
    """The label once `axes`, none of them the batch's, are gone; lost if the batch's goes."""
    if label in (None, LOST):
        return label
    if label.axis in axes:
        return LOST
    return Batch(label.axis - sum(a < label.axis for a in axes), label.inner)


def _mixed(equation: Equation, how: str):
    where = f" at {equation.source}" if equation.source else ""
    raise MixedError(f"{equation.name} {how} the batch axis{where}")


def _rule_by_family(name):
    if name in _ELEMENTWISE:
        return _elementwise
    if name.startswith(("reduce_window", "select_and")):
        return _window
    if name.startswith(("reduce_", "arg")):
        return _reduce
    return _cumulative if name in _CUMULATIVE else _unknown


def _unknown(graph, equation, labels, size):
    del graph, equation, labels, size
    return LOST


def _elementwise(graph, equation, labels, size):
    del graph, size
    distinct = {label for label in labels if label is not None}
    if len(distinct) > 1:
        _mixed(equation, "pairs entries across")
    return next(iter(distinct))


def _reduce(graph, equation, labels, size):
    del graph, size
    label, axes = labels[0], equation.params.get("axes", ())
    if label is not None and label.axis in axes:
        _mixed(equation, "reduces over")
    return _dropped(label, axes)


def _cumulative(graph, equation, labels, size):
    del graph, size
    if labels[0].axis == equation.params["axis"]:
        _mixed(equation, "accumulates over")
    return labels[0]


def _sort(graph, equation, labels, size):
    del size
    axis = equation.params.get("dimension", len(graph.shape(equation.inputs[0])) - 1)
    if any(label is not None and label.axis == axis for label in labels):
        _mixed(equation, "sorts along")
    return _joined(labels)


def _window(graph, equation, labels, size):
    del graph, size
    window = equation.params.get("window_dimensions", ())
    label = _joined(labels)
    if label is LOST or label.axis >= len(window):
        return LOST
    if window[label.axis] > 1:
        _mixed(equation, "pools over")
    return LOST if any(equation.params["padding"][label.axis]) else label


def _dot_general(graph, equation, labels, size):
    del size
    contract, batch = equation.params["dimension_numbers"]
    places = []
    for side, label in enumerate(labels):
        if label is None:
            continue
        if label.axis in contract[side]:
            _mixed(equation, "contracts")
        if label.axis in batch[side]:
            places.append(Batch(batch[side].index(label.axis), label.inner))
            continue
        rank = len(graph.shape(equation.inputs[side]))
        free = [d for d in range(rank) if d not in (*contract[side], *batch[side])]
        shift = len(batch[0]) + (_num_left_free(graph, equation) if side else 0)
        places.append(Batch(shift + free.index(label.axis), label.inner))
    if len(set(places)) > 1:
        _mixed(equation, "pairs entries across")
    return places[0]


def _num_left_free(graph, equation):
    contract, batch = equation.params["dimension_numbers"]
    return len(graph.shape(equation.inputs[0])) - len(contract[0]) - len(batch[0])


def _convolution(graph, equation, labels, size):
    del graph, size
    spec = equation.params["dimension_numbers"]
    if labels[1] is not None:
        return LOST
    if labels[0].axis in spec.lhs_spec[2:]:
        _mixed(equation, "slides over")
    is_batch = labels[0].axis == spec.lhs_spec[0] and equation.params["batch_group_count"] == 1
    return Batch(spec.out_spec[0], labels[0].inner) if is_batch else LOST


def _reshape(graph, equation, labels, size):
    old, new = (graph.shape(v) for v in (equation.inputs[0], equation.outputs[0]))
    axis, inner = labels[0]
    stride = prod(old[axis + 1 :]) * inner
    for d, length in enumerate(new):
        below = prod(new[d + 1 :])
        whole = stride % below == 0 and length % max(stride // below * size, 1) == 0
        if below <= stride and length > 1 and whole:
            return Batch(d, stride // below)
    return LOST


def _transpose(graph, equation, labels, size):
    del graph, size
    return Batch(equation.params["permutation"].index(labels[0].axis), labels[0].inner)


def _squeeze(graph, equation, labels, size):
    del graph, size
    return _dropped(labels[0], equation.params["dimensions"])


def _broadcast(graph, equation, labels, size):
    del graph, size
    return Batch(equation.params["broadcast_dimensions"][labels[0].axis], labels[0].inner)


def _same_axis(graph, equation, labels, size):
    """Operations that keep dimensions apart: fine as long as the batch axis keeps its length."""
    del size
    label = _joined(labels)
    if any(equation.params.get("padding_config", {label.axis: ()})[label.axis]):
        return LOST  # Cut at one end and extended at the other, an axis keeps its length.
    before = {graph.shape(v)[label.axis] for v in equation.inputs if graph.shape(v)}
    after = {graph.shape(v)[label.axis] for v in equation.outputs}
    return label if label is not LOST and before == after else LOST


def _gather(graph, equation, labels, size):
    del size
    numbers = equation.params["dimension_numbers"]
    rank = len(graph.shape(equation.outputs[0]))
    if labels[0] is not None:
        return LOST
    free = [d for d in range(rank) if d not in numbers.offset_dims]
    return Batch(free[labels[1].axis], labels[1].inner)


_RULES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _same_axis,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "gather": _gather,
    "pad": _same_axis,
    "reshape": _reshape,
    "slice": _same_axis,
    "sort": _sort,
    "split": _same_axis,
    "squeeze": _squeeze,
    "top_k": _sort,
    "transpose": _transpose,
}
