# SPDX-License-Identifier: Apache-2.0
"""The role of every axis in products, convolutions, indexing and decompositions."""

from collections.abc import Callable
from functools import partial

from plprune.graph.combining import combined
from plprune.graph.following import LOST, MIXED, Value, Walk, frozen
from plprune.graph.following_rules import guarded
from plprune.graph.tracing import Equation

Outputs = list[Value]


def dot_general(walk: Walk, equation: Equation, values: list[Value]) -> Outputs:
    """Contracted axes are summed over, axes of a batched product go together."""
    contracted, paired = equation.params["dimension_numbers"]
    ranks = [len(walk.shape(v)) for v in equation.inputs]
    place, roles = len(paired[0]), []
    for side in (0, 1):
        own: list = [None] * ranks[side]
        for k, d in enumerate(contracted[side]):
            own[d] = ("contracted", k)
        for k, d in enumerate(paired[side]):
            own[d] = k
        for d in range(ranks[side]):
            if own[d] is None:
                own[d], place = place, place + 1
        roles.append(own)
    params = frozen({k: v for k, v in equation.params.items() if k != "dimension_numbers"})
    return combined(walk, equation, values, roles, how="contracts", kind=MIXED, params=params)


def convolution(walk: Walk, equation: Equation, values: list[Value]) -> Outputs:
    """Images stay apart, and so do output channels; positions stay where the kernel is a point."""
    params = equation.params
    lhs, rhs, out = (tuple(map(int, spec)) for spec in params["dimension_numbers"])
    left: list = [None] * len(lhs)
    right: list = [None] * len(rhs)
    left[lhs[0]] = out[0] if params["batch_group_count"] == 1 else ("images",)
    left[lhs[1]], right[rhs[1]] = ("channels",), ("channels",)
    right[rhs[0]] = out[1] if params["batch_group_count"] == 1 else ("outputs",)
    for k, (d, e) in enumerate(zip(lhs[2:], rhs[2:], strict=True)):
        own = params["window_strides"][k], params["padding"][k], params["lhs_dilation"][k]
        is_point = walk.shape(equation.inputs[1])[e] == 1 and own == (1, (0, 0), 1)
        left[d] = out[2 + k] if is_point else ("position", k, *own, params["rhs_dilation"][k])
        right[e] = ("kernel", k)
    rest = params["feature_group_count"], params["batch_group_count"], params["dimension_numbers"]
    rest += (frozen(params.get("precision")), str(params.get("preferred_element_type")))
    # Among channels in groups examples may stay apart, each in a group of its own.
    grouped = params["feature_group_count"] > 1 or params["batch_group_count"] > 1
    fault = {"how": "slides over", "kind": LOST if grouped else MIXED}
    return combined(walk, equation, values, [left, right], params=rest, **fault)


def gather(walk: Walk, equation: Equation, values: list[Value]) -> Outputs:
    """Axes that are taken whole go over to the result, and so do those of the row numbers."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, rows = (walk.shape(v) for v in equation.inputs)
    rank = len(walk.shape(equation.outputs[0]))
    free = [d for d in range(rank) if d not in numbers.offset_dims]
    part = {int(d): k for k, d in enumerate(numbers.start_index_map)}  # Of the row numbers.
    own: list = [("picked", part.get(d)) for d in range(len(operand))]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [d for d in range(len(operand)) if d not in gone]
    for d, place in zip(kept, numbers.offset_dims, strict=True):
        # A row number along an axis that is taken whole is zero, or out of bounds for all of it.
        own[d] = int(place) if sizes[d] == operand[d] else ("cut", sizes[d], part.get(d))
    for d, e in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        own[d] = free[e]
    whole = tuple(part[d] for d in kept if d in part and sizes[d] == operand[d] > 1)
    rest = {name: equation.params.get(name) for name in ("mode", "fill_value")}
    roles = [own, [*free, ("index",)][: len(rows)]]
    return combined(walk, equation, values, roles, how="picks along", params=(whole, frozen(rest)))


def scatter(walk: Walk, equation: Equation, values: list[Value]) -> Outputs:
    """Axes that updates cover whole go over to the result, and so do batched ones."""
    numbers = equation.params["dimension_numbers"]
    operand, rows, updates = (walk.shape(v) for v in equation.inputs)
    own: list = [("updated", *numbers.scatter_dims_to_operand_dims)] * len(operand)
    moved: list = [("row",)] * len(updates)
    kept = [
        d
        for d in range(len(operand))
        if d not in (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    ]
    for d, place in zip(kept, numbers.update_window_dims, strict=True):
        if updates[place] == operand[d] and d not in numbers.scatter_dims_to_operand_dims:
            own[d] = moved[place] = d
        else:
            own[d] = moved[place] = ("window",)
    free = [d for d in range(len(updates)) if d not in numbers.update_window_dims]
    indices: list = [*[("row",)] * (len(rows) - 1), ("index",)]
    for d, e in zip(
        numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True
    ):
        own[d] = indices[e] = moved[free[e]] = int(d)
    params = (_indexing(equation),)
    return combined(
        walk, equation, values, [own, indices, moved], how="writes along", params=params
    )


def _indexing(equation):
    names = ("dimension_numbers", "mode", "fill_value", "indices_are_sorted", "unique_indices")
    return frozen({name: equation.params.get(name) for name in names})


def dynamic_slice(walk: Walk, equation: Equation, values: list[Value]) -> Outputs:
    """Axes that are taken whole stay: their start is clamped to zero."""
    shape, sizes = walk.shape(equation.inputs[0]), equation.params["slice_sizes"]
    own = [d if sizes[d] == n else ("cut", d, sizes[d]) for d, n in enumerate(shape)]
    roles = [own, *[()] * (len(values) - 1)]
    return combined(walk, equation, values, roles, how="cuts")


def dynamic_update_slice(walk: Walk, equation: Equation, values: list[Value]) -> Outputs:
    """Axes that are written whole stay: their start is clamped to zero."""
    shape, update = (walk.shape(v) for v in equation.inputs[:2])
    own = [d if n == update[d] else ("written", d) for d, n in enumerate(shape)]
    roles = [own, own, *[()] * (len(values) - 2)]
    return combined(walk, equation, values, roles, how="writes along")


def on_last_axes(
    walk: Walk, equation: Equation, values: list[Value], *, count: int | None
) -> Outputs:
    """Leading axes go together, the last ones are worked on: decompositions, transforms."""
    if count is None:
        count = len(equation.params["fft_lengths"])
    ranks = [len(walk.shape(v)) for v in equation.inputs]
    roles = [(*range(n - count), *[("worked", k) for k in range(count)]) for n in ranks]
    params = frozen(equation.params)
    return combined(walk, equation, values, roles, how="works along", params=params)


_SCATTER = ("", "-add", "-mul", "-min", "-max", "_add", "_mul", "_min", "_max", "_sub", "-sub")
_CONVOLUTION = (
    "dimension_numbers", "window_strides", "padding", "lhs_dilation", "rhs_dilation",
    "feature_group_count", "batch_group_count", "lhs_shape", "rhs_shape",
)  # fmt: skip
_SCATTERING = ("dimension_numbers", "update_jaxpr", "update_consts")
RULES: dict[str, Callable] = {
    "dot_general": guarded(dot_general, "dimension_numbers"),
    "conv_general_dilated": guarded(convolution, *_CONVOLUTION),
    "gather": guarded(gather, "dimension_numbers", "slice_sizes"),
    **{f"scatter{name}": guarded(scatter, *_SCATTERING) for name in _SCATTER},
    "dynamic_slice": guarded(dynamic_slice, "slice_sizes"),
    "dynamic_update_slice": guarded(dynamic_update_slice),
    "fft": guarded(partial(on_last_axes, count=None), "fft_type", "fft_lengths"),
    "cholesky": guarded(partial(on_last_axes, count=2), "symmetrize_input"),
    "eigh": guarded(
        partial(on_last_axes, count=2), "lower", "sort_eigenvalues", "subset_by_index",
    ),
    "svd": guarded(partial(on_last_axes, count=2), "compute_uv", "subset_by_index"),
    "qr": guarded(partial(on_last_axes, count=2), "pivoting"),
    "lu": guarded(partial(on_last_axes, count=2), "pivots"),
    "triangular_solve": guarded(
        partial(on_last_axes, count=2),
        "left_side", "lower", "transpose_a", "conjugate_a", "unit_diagonal",
    ),
}  # fmt: skip
