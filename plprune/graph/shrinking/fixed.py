# SPDX-License-Identifier: Apache-2.0
"""Arrays that a function computes from nothing but constants, such as indices written into it."""

from collections.abc import Callable

import numpy as np

from plprune.graph.shrinking.known import entries
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import Variable


def fixed_value(labels: Labels, variable: Variable, known: dict) -> np.ndarray | None:
    """The value of an array that depends on no argument and takes a few plain steps to find."""
    if variable not in known:
        known[variable] = _value(labels, variable, known)
    return known[variable]


def _value(labels, variable, known):
    if variable in labels.graph.constants:
        return entries(labels.graph.constants[variable])
    equation = labels.makers.get(variable)
    if equation is None:
        return None
    step = _STEPS.get(equation.name)
    if step is None or labels.primitives.unread(equation):
        return None
    operands = [fixed_value(labels, v, known) for v in equation.inputs]
    if any(x is None for x in operands):
        return None
    return step(equation.params, *operands)


def _broadcast(params, operand):
    expanded = [1] * len(params["shape"])
    for size, d in zip(operand.shape, params["broadcast_dimensions"], strict=True):
        expanded[d] = size
    return np.broadcast_to(operand.reshape(expanded), params["shape"])


def _iota(params):
    along = [-1 if d == params["dimension"] else 1 for d in range(len(params["shape"]))]
    values = np.arange(params["shape"][params["dimension"]], dtype=params["dtype"])
    return np.broadcast_to(values.reshape(along), params["shape"])


# What JAX does with indices before it looks them up, and the usual ways to write them down.
_STEPS: dict[str, Callable[..., np.ndarray]] = {
    "lt": lambda _, x, y: x < y,
    "add": lambda _, x, y: x + y,
    "sub": lambda _, x, y: x - y,
    "mul": lambda _, x, y: x * y,
    "select_n": lambda _, which, *cases: np.choose(which.astype(int), cases),
    "convert_element_type": lambda params, x: x.astype(params["new_dtype"]),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x: x.reshape(params["new_sizes"]),
    "squeeze": lambda params, x: np.squeeze(x, params["dimensions"]),
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "concatenate": lambda params, *parts: np.concatenate(parts, params["dimension"]),
    "iota": _iota,
}
