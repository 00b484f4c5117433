# SPDX-License-Identifier: Apache-2.0
"""Which parameters of the primitives the rules know; an equation with any other has no rule.

A rule that overlooks a parameter is silently wrong where the parameter is not at its default. So
every parameter is either read by all rules of its primitive, or known to say nothing of which
entries meet, or refused.
"""

from collections.abc import Mapping
from typing import TypeVar

import jax.numpy as jnp

from plprune.graph.tracing import STRUCTURAL, Equation, Graph

Rule = TypeVar("Rule")

# Of any primitive: how and where numbers are computed and stored, not which.
_HARMLESS = frozenset(
    """precision preferred_element_type accuracy sharding out_sharding weak_type update_consts
    indices_are_sorted unique_indices is_stable index_dtype""".split()  # noqa: SIM905
)
_WINDOW = "window_dimensions window_strides padding base_dilation window_dilation"
_READ = {
    "integer_pow": "y",
    "round": "rounding_method",
    "reduce_precision": "exponent_bits mantissa_bits",
    "convert_element_type": "new_dtype",
    "bitcast_convert_type": "new_dtype",
    "transpose": "permutation",
    "squeeze": "dimensions",
    "broadcast_in_dim": "shape broadcast_dimensions",
    "reshape": "new_sizes",  # What `dimensions` asks for is an equation of its own.
    "rev": "dimensions",
    "concatenate": "dimension",
    "split": "sizes axis",
    "slice": "start_indices limit_indices strides",
    "pad": "padding_config",
    "iota": "dtype shape dimension",
    "stack": "axis",
    "unstack": "axis",
    "tile": "reps",
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"),
        "axis reverse",
    ),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        "axes",
    ),
    **dict.fromkeys(("reduce_xor", "argmax", "argmin"), "axes"),
    **dict.fromkeys((f"reduce_window_{fold}" for fold in ("max", "min", "sum")), _WINDOW),
    "sort": "dimension num_keys",
    "top_k": "k axis",
    "dot_general": "dimension_numbers",
    "conv_general_dilated": "window_strides padding lhs_dilation rhs_dilation dimension_numbers "
    "feature_group_count batch_group_count",
    "dynamic_slice": "slice_sizes",
    "gather": "dimension_numbers slice_sizes mode fill_value",
}
_KNOWN = {name: _HARMLESS.union(text.split()) for name, text in _READ.items()}
# Outputs are the operands, whatever these say; and bodies with their shapes say all of a call.
_FREE = frozenset(
    {"optimization_barrier", "device_put", "name", "sharding_constraint", "copy", "copy_p"}
) | {"scan", "cond", "while", "custom_jvp_call", "custom_vjp_call"}


def unread(equation: Equation) -> str | None:
    """A parameter with a value that no rule takes into account, None where there is none."""
    if equation.name in _FREE:
        return None
    known = _KNOWN.get(equation.name, _HARMLESS)
    asked = (name for name, value in equation.params.items() if value is not None)
    return next((name for name in asked if name not in known), None)


def is_structural(graph: Graph, equation: Equation) -> bool:
    """Whether an equation only moves the entries of its first operand, or casts them to floats.

    A cast to integers does neither: it has no derivative, and does not scale with its operand.
    """
    if equation.name not in STRUCTURAL or unread(equation):
        return False
    source, target = (
        jnp.issubdtype(graph.avals[v].dtype, jnp.inexact)
        for v in (equation.inputs[0], equation.outputs[0])
    )
    return target or not source


def rule_of(rules: Mapping[str, Rule], equation: Equation) -> Rule | None:
    """The rule for an equation, where there is one and it reads all that the equation says."""
    return None if unread(equation) else rules.get(equation.name)
