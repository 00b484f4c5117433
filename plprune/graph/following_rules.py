# SPDX-License-Identifier: Apache-2.0
"""The role of every axis in every primitive, for `plprune.graph.following`."""

from collections.abc import Callable
from functools import partial

from plprune.graph.combining import combined
from plprune.graph.following import LOST, MIXED, Value, Walk, frozen
from plprune.graph.layouts import OWN, SAME, Factor, regrouped, uniform_layout
from plprune.graph.tracing import Equation

ELEMENTWISE = (  # Names in one string: a table of ninety quoted words would bury the rest.
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv
    erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le
    lgamma log log1p logistic lt max min mul mul_add ne neg nextafter not or polygamma
    population_count pow random_gamma_grad real reduce_precision regularized_incomplete_beta rem
    round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
    square stop_gradient sub tan tanh xor zeta bitcast_convert_type
    """.split()  # noqa: SIM905
)
_WINDOWS = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
# Parameters that say how precisely, of which type or where something is computed.
_HARMLESS = frozenset({
    "accuracy", "algorithm", "dtype", "exponent_bits", "fill_value", "full_matrices", "index_dtype",
    "indices_are_sorted", "is_stable", "k", "mantissa_bits", "mode", "name", "new_dtype",
    "num_keys", "out_dtype", "out_sharding", "precision", "preferred_element_type", "reverse",
    "rounding_method", "select_prim", "sharding", "unique_indices", "use_magma",
    "weak_type", "y",
})  # fmt: skip


def elementwise(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes of equal size go together; scalars and axes of size 1 are repeated."""
    rank = len(walk.shape(equation.outputs[0]))
    ranks = [len(walk.shape(v)) for v in equation.inputs]
    if set(ranks) - {0, rank}:  # A cast to another width.
        return walk.opaque(equation, values)
    roles = [range(n) for n in ranks]
    return combined(walk, equation, values, roles, made=SAME, params=frozen(equation.params))


def each(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Outputs are the inputs."""
    del walk, equation
    return list(values)


def reduce(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """What is left keeps its order."""
    axes = equation.params["axes"]
    roles = _kept(len(walk.shape(equation.inputs[0])), dict.fromkeys(axes, ("reduced",)))
    rest = _without(equation.params, "axes")
    return combined(walk, equation, values, [roles], how="reduces over", kind=MIXED, params=rest)


def along(
    walk: Walk, equation: Equation, values: list[Value], *, parameter: str, how: str, kind: str
) -> list[Value]:
    """Work along one axis, which stays or changes its length: accumulating, sorting."""
    rank = len(walk.shape(equation.inputs[0]))
    axis = equation.params.get(parameter, rank - 1) % max(rank, 1)
    roles = [(*range(axis), ("worked",), *range(axis + 1, rank)) for _ in values]
    rest = _without(equation.params, parameter)
    return combined(walk, equation, values, roles, how=how, kind=kind, params=rest)


def reverse(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Entries in the opposite order."""
    rank = len(walk.shape(equation.inputs[0]))
    turned = set(equation.params["dimensions"])
    roles = [d if d not in turned else ("reversed",) for d in range(rank)]
    return combined(walk, equation, values, [roles], how="reverses")


def slice_(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are taken whole stay."""
    starts, stops = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    shape = walk.shape(equation.inputs[0])
    roles = [
        d if part == (0, shape[d], 1) else ("slice", *part)
        for d, part in enumerate(zip(starts, stops, strides, strict=True))
    ]
    return combined(walk, equation, values, [roles], how="cuts")


def pad(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes that are not padded stay."""
    config = equation.params["padding_config"]
    roles = [d if tuple(c) == (0, 0, 0) else ("pad", *c) for d, c in enumerate(config)]
    return combined(walk, equation, values, [roles, ()], how="pads")


def window(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes with a window of one entry, step one and no padding stay."""
    params = equation.params
    rank = len(walk.shape(equation.inputs[0]))
    parts = [tuple(params.get(name) or (None,) * rank) for name in _WINDOWS]
    plain = ((1, None), (1, None), ((0, 0), None), (1, None), (1, None))
    roles = [
        d if all(x in ok for x, ok in zip(own, plain, strict=True)) else ("window", *own)
        for d, own in enumerate(zip(*parts, strict=True))
    ]
    whole = [roles if len(walk.shape(v)) == rank else () for v in equation.inputs]
    rest = _without(params, *_WINDOWS)
    return combined(walk, equation, values, whole, how="pools over", kind=MIXED, params=rest)


def concatenate(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """All axes but one go together."""
    axis = equation.params["dimension"]
    rank = len(walk.shape(equation.outputs[0]))
    roles = [(*range(axis), ("joined",), *range(axis + 1, rank)) for _ in values]
    return combined(walk, equation, values, roles, how="joins pieces of")


def split(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """All axes but one stay."""
    axis, sizes = equation.params["axis"], tuple(equation.params["sizes"])
    roles = _kept(len(walk.shape(equation.inputs[0])), {axis: ("split", sizes)}, dropped=False)
    return combined(walk, equation, values, [roles], how="cuts")


def stack(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """A new axis, along which the operands lie."""
    axis = equation.params["axis"]
    roles = [tuple(d + (d >= axis) for d in range(len(walk.shape(v)))) for v in equation.inputs]
    return combined(walk, equation, values, roles, params=())


def unstack(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """An axis that is dealt out to the outputs."""
    axis = equation.params["axis"]
    roles = _kept(len(walk.shape(equation.inputs[0])), {axis: ("unstacked",)})
    return combined(walk, equation, values, [roles], how="takes apart")


def transpose(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes in another order."""
    order = equation.params["permutation"]
    roles = [order.index(d) for d in range(len(order))]
    return combined(walk, equation, values, [roles], is_move=True)


def squeeze(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Axes of size 1 are dropped."""
    rank = len(walk.shape(equation.inputs[0]))
    gone = {d % rank for d in equation.params["dimensions"]}
    roles = _kept(rank, dict.fromkeys(gone, ("dropped",)))
    return combined(walk, equation, values, [roles], is_move=True)


def broadcast(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """New axes, and axes of size 1, are constant."""
    if len(values) > 1:  # Sizes that are themselves computed.
        return walk.opaque(equation, values)
    roles = [[int(d) for d in equation.params["broadcast_dimensions"]]]
    return combined(walk, equation, values, roles, made=SAME, is_move=True)


def reshape(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Row-major regrouping of factors."""
    if equation.params.get("dimensions") is not None or len(values) > 1:
        return walk.opaque(equation, values)
    return _regrouped(walk, equation, values[0])


def tile(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Every axis repeated as a whole."""
    del walk
    layout = tuple(
        ((Factor(n, SAME),) if n > 1 else ()) + axis
        for n, axis in zip(equation.params["reps"], values[0].layout, strict=True)
    )
    return [values[0]._replace(layout=layout)]


def iota(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """Constant along all axes but one."""
    del values
    (out,) = equation.outputs
    shape, axis = walk.shape(out), equation.params["dimension"]
    layout = list(uniform_layout(shape, SAME))
    layout[axis] = uniform_layout(shape[axis : axis + 1], OWN)[0]
    return [Value(tuple(layout), walk.named("iota", str(equation.params["dtype"]), shape[axis]))]


def _regrouped(walk, equation, value):
    (out,) = equation.outputs
    shape = walk.shape(out)
    layout = regrouped(value.layout, shape)
    if layout is not None:
        return [value._replace(layout=layout)]
    if not value.is_followed:  # What is constant in part of an axis only need not be.
        key = walk.named("reshape", value.key, value.layout, shape)
        return [Value(uniform_layout(shape, OWN), key, value.fault)]
    fault = value.fault or walk.fault(LOST, equation, "splits")
    return [Value(uniform_layout(shape, OWN), value.key, fault)]


def _kept(rank, worked, *, dropped=True):
    """Roles of the axes of an operand: those that are not worked on close up, or keep places."""
    roles, place = [], 0
    for d in range(rank):
        if d in worked:
            roles.append(worked[d])
            place += not dropped
        else:
            roles.append(place)
            place += 1
    return roles


def _without(params, *names):
    return frozen({name: value for name, value in params.items() if name not in names})


def guarded(rule: Callable, *read: str) -> Callable:
    """A rule for equations all of whose parameters are known to it."""
    known = _HARMLESS.union(read)

    def checked(walk, equation, values):
        if not known.issuperset(equation.params):
            return walk.opaque(equation, values)
        return rule(walk, equation, values)

    return checked


def _along(parameter, how, kind, *more):
    return guarded(partial(along, parameter=parameter, how=how, kind=kind), parameter, *more)


_REDUCE = ("sum", "max", "min", "prod", "and", "or", "xor")
_POOLS = ("max", "min", "sum")
RULES: dict[str, Callable] = {
    **dict.fromkeys(ELEMENTWISE, guarded(elementwise)),
    **dict.fromkeys(
        ("optimization_barrier", "device_put", "name", "sharding_constraint", "pvary"), each
    ),
    **{f"reduce_{name}": guarded(reduce, "axes") for name in _REDUCE},
    **dict.fromkeys(("argmax", "argmin"), guarded(reduce, "axes")),
    **{
        f"cum{name}": _along("axis", "accumulates over", MIXED)
        for name in ("sum", "prod", "max", "min", "logsumexp")
    },
    "sort": _along("dimension", "sorts along", MIXED),
    "top_k": _along("axis", "sorts along", MIXED),
    **{f"reduce_window_{name}": guarded(window, *_WINDOWS) for name in _POOLS},
    "select_and_scatter_add": guarded(window, *_WINDOWS),
    "select_and_gather_add": guarded(window, *_WINDOWS),
    "rev": guarded(reverse, "dimensions"),
    "slice": guarded(slice_, "start_indices", "limit_indices", "strides"),
    "pad": guarded(pad, "padding_config"),
    "concatenate": guarded(concatenate, "dimension"),
    "split": guarded(split, "axis", "sizes"),
    "stack": guarded(stack, "axis"),
    "unstack": guarded(unstack, "axis"),
    "transpose": guarded(transpose, "permutation"),
    "squeeze": guarded(squeeze, "dimensions"),
    "broadcast_in_dim": guarded(broadcast, "broadcast_dimensions", "shape"),
    "reshape": guarded(reshape, "new_sizes", "dimensions"),
    "tile": guarded(tile, "reps"),
    "iota": guarded(iota, "dimension", "shape"),
}
