# SPDX-License-Identifier: Apache-2.0
"""What every kernel starts from: checked arguments, real leaves, a plan."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plprune.graph.leaves import differentiable
from plprune.graph.linear.taps import (
    Taps,
    find_taps,
    leaf_is_output,
    uses_complex_numbers,
    uses_dynamic_loop,
)
from plprune.graph.tracing import trace
from plprune.independence import alone, batch_size, check_independent, read_or_refuse, settle
from plprune.kernels.routes import Route, cheapest_route, outer_route
from plprune.operators import flat_outputs
from plprune.types import Apply, Inputs, Params

METHODS = ("auto", "layerwise", "contraction")


class Problem(NamedTuple):
    """A kernel to be computed, all static facts decided."""

    apply: Apply  # Of the list of real leaves; outputs [b, c].
    leaves: list[Array]  # Real, at least float32.
    real: tuple[int, ...]  # Which leaves of the original tree these are.
    inputs: Inputs
    other: Inputs | None  # None: the same batch.
    taps: Taps
    by_layer: bool
    forward: bool  # Jacobians by forward passes: a loop of unknown length is in the way.
    routes: tuple[Route, ...]  # Per term: how it is contracted.
    num_outputs: int
    num_seeds: int  # 1 for the kernel's trace over outputs, else c.
    dtype: Any

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of examples b and b'."""
        rows = batch_size(self.inputs)
        return rows, rows if self.other is None else batch_size(self.other)

    @property
    def sums_outputs(self) -> bool:
        """Whether the kernel is the trace over outputs."""
        return self.num_seeds != self.num_outputs

    @property
    def both(self) -> Inputs:
        """The inputs, and behind them those of the columns."""
        if self.other is None:
            return self.inputs
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self.inputs, self.other)


def make_problem(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    other: Inputs | None,
    method: str,
    tile: int | None,
    *,
    independent: bool = False,
    sums_outputs: bool = False,
    join: bool = True,
) -> Problem:
    """Check the arguments, trace `apply` for one example and choose how to contract each leaf.

    The arguments are those of `tangent_kernel`; `sums_outputs` asks for the trace over outputs
    only, and `join` lets a bias share the outer products of its weight.

    Raises:
      ValueError: as `tangent_kernel`.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}.")
    size = batch_size(inputs)
    _check_other(inputs, other)
    function, leaves, real = differentiable(apply, params)
    model = flat_outputs(function)

    def one(values, example):
        return model(values, jax.tree.map(lambda a: a[None], example))[0]

    batch = trace(model, leaves, inputs)
    _check_outputs(batch.avals[batch.outputs[0]], size)
    read = read_or_refuse(batch, size) if size > 1 and not independent else None
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), inputs)
    taps = alone(find_taps, one, leaves, example, join=join)
    proven = read is not None and settle(read, taps.graph, model, leaves, inputs)
    if other is not None and not (proven and batch_size(other) == size):
        check_independent(model, leaves, other, independent=independent)
    (num_outputs,) = taps.output.shape
    seeds = 1 if sums_outputs else num_outputs
    forward = uses_dynamic_loop(taps.graph, len(leaves))
    whole = forward or leaf_is_output(taps) or uses_complex_numbers(taps.graph, len(leaves))
    by_layer = method != "contraction" and not whole
    # "layerwise" never materialises what can stay outer products; "auto" where that is cheaper.
    kept = method == "layerwise"
    routes = tuple(
        outer_route(t) if kept else cheapest_route(t, seeds, num_outputs, size) for t in taps.terms
    )
    dtype = jnp.result_type(taps.output.dtype, jnp.float32, *leaves)
    return Problem(
        model,
        leaves,
        real,
        inputs,
        other,
        taps,
        by_layer,
        forward,
        routes,
        num_outputs,
        seeds,
        dtype,
    )


def _check_other(inputs, other):
    if other is None:
        return
    batch_size(other)
    shapes = [
        jax.tree.map(lambda a: (jnp.shape(a)[1:], jnp.result_type(a)), tree)
        for tree in (inputs, other)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(f"other must hold examples like inputs', {shapes[0]}, got {shapes[1]}.")


def _check_outputs(output, size):
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(f"apply must return real numbers, got {output.dtype}.")
    if output.shape[0] != size:
        raise ValueError(
            f"apply must return one output per example: inputs hold {size}, "
            f"outputs have leading axis {output.shape[0]}."
        )
