# SPDX-License-Identifier: Apache-2.0
"""The table of label rules, and the labels of a traced function."""

from plprune.graph import (
    contraction_rules,
    control_rules,
    indexing_rules,
    label_rules,
    stacking_rules,
)
from plprune.graph.labels import Labels, Rule
from plprune.graph.tracing import Graph

RULES: dict[str, Rule] = {
    **dict.fromkeys(label_rules.ELEMENTWISE, label_rules.elementwise),
    **dict.fromkeys(label_rules.IDENTITIES, label_rules.fold),
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), contraction_rules.cumulative
    ),
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_min", "reduce_window_sum"), contraction_rules.window
    ),
    **dict.fromkeys(
        ("optimization_barrier", "device_put", "name", "sharding_constraint"), label_rules.each
    ),
    "stack": stacking_rules.label_stack,
    "unstack": stacking_rules.label_unstack,
    "tile": stacking_rules.label_tile,
    "eq": label_rules.equality,
    "transpose": label_rules.transpose,
    "squeeze": label_rules.squeeze,
    "broadcast_in_dim": label_rules.broadcast_in_dim,
    "reshape": label_rules.reshape,
    "rev": label_rules.rev,
    "concatenate": label_rules.concatenate,
    "split": label_rules.split,
    "slice": label_rules.slice_,
    "pad": label_rules.pad,
    "iota": label_rules.iota,
    "dot_general": contraction_rules.dot_general,
    "conv_general_dilated": contraction_rules.convolution,
    "sort": contraction_rules.sort,
    "top_k": contraction_rules.top_k,
    "dynamic_slice": contraction_rules.dynamic_slice,
    "dynamic_update_slice": contraction_rules.dynamic_update_slice,
    "gather": indexing_rules.label_gather,
    "scan": control_rules.scan,
    "cond": control_rules.cond,
    "custom_jvp_call": control_rules.call,
    "custom_vjp_call": control_rules.call,
}


def label(graph: Graph, num_params: int) -> Labels:
    """Labels of every axis in a graph whose first `num_params` inputs may shrink."""
    return Labels(graph, num_params, RULES, label_rules.refuse)
