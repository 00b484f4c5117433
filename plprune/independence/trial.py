# SPDX-License-Identifier: Apache-2.0
"""Whether the rows of a batch come out alike by themselves, at the values at hand."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from plprune.compilation import are_concrete, run_once
from plprune.graph.independence import Read
from plprune.graph.leaves import of_real_leaves
from plprune.graph.tracing import all_equations
from plprune.types import Apply, Inputs, Params


def batch_size(inputs: PyTree) -> int:
    """Length of the leading axis that all leaves of `inputs` share.

    Raises:
      ValueError: no leaves, a scalar leaf, or leading axes that differ.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"inputs must share one leading batch axis, got shapes {shapes}.")
    return shapes[0][0]


def agree_if_known(read: Read, apply: Apply, params: Params, inputs: Inputs) -> bool | None:
    """Whether the rows of a batch agree with themselves alone, and in other company.

    Args:
      read: The batch's graph.
      apply: As `check_independent` takes it, like the next two.
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].

    Returns:
      None where the values are not known (under jit, vmap or grad). One compilation.
    """
    if not are_concrete((params, inputs)):
        return None
    names = {e.name for e in all_equations(read.graph)}
    options = {"tolerance": _tolerance(read.graph), "backward": "custom_vjp_call" in names}
    values = {"params": params, "inputs": inputs}
    try:
        # Values that are at hand while something else is being traced serve as well.
        with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
            return bool(run_once(_by_rows, {"apply": apply, **options}, values))
    except jax.errors.ConcretizationTypeError:
        return None


def _tolerance(graph):
    """Relative, of the coarsest type that is computed with: what reordered sums differ by."""
    dtypes = {getattr(aval, "dtype", None) for aval in graph.avals.values()}
    coarsest = max(
        (float(jnp.finfo(d).eps) for d in dtypes if d is not None and _is_inexact(d)),
        default=float(jnp.finfo(jnp.float32).eps),
    )
    return min(500 * coarsest, coarsest**0.5)


def _is_inexact(dtype):
    return jnp.issubdtype(dtype, jnp.inexact)


def _by_rows(apply, tolerance, backward, params, inputs):
    """Whether values and a derivative of the batch are those of its rows, alone and moved.

    All rows are compared: three forward passes cost nothing beside a kernel.
    """
    function, leaves, _ = of_real_leaves(apply, params)
    start = [jnp.asarray(p) for p in leaves]
    sizes = [_scale(p) for p in start]

    def outputs(values, x):
        out = function(values, x)
        return out.reshape(out.shape[0], -1)

    def one(values, example):
        return outputs(values, jax.tree.map(lambda a: a[None], example))[0]

    inputs = jax.tree.map(jnp.asarray, inputs)
    size = batch_size(inputs)
    # Every row moves on; forwards, where rows stay apart, half of them also have doubles.
    order = (np.arange(size) + 1) % size
    if not backward:
        order[size // 2 :] = order[: size - size // 2]
    moved = jax.tree.map(lambda a: a[order], inputs)
    derived = _backward if backward else _forward
    whole, alone_, others = derived(outputs, one, start, sizes, inputs, moved, order)
    ok = _close(whole[0], alone_[0], 0.0, tolerance)
    ok &= _close(whole[0][order], others[0], 0.0, tolerance)
    # A derivative that cancels is no larger than the rounding of the outputs.
    floor = jnp.max(jnp.abs(jnp.where(jnp.isfinite(whole[0]), whole[0], 0)), initial=0)
    for a, b, c in zip(whole[1], alone_[1], others[1], strict=True):
        ok &= _close(a, b, floor, tolerance)
        ok &= _close(a if backward else a[order], c, floor, tolerance)
    return ok


def _scale(p):
    """The root mean square of a leaf, 1 where that says nothing."""
    norm = jnp.sqrt(jnp.sum(jnp.square(p)) / max(p.size, 1))
    return jnp.where((norm > 0) & jnp.isfinite(norm), norm, 1).astype(p.dtype)


def _forward(outputs, one, start, sizes, inputs, moved, order):
    """Outputs, and their derivative as every leaf moves in proportion to its size."""
    del order
    keys = jax.random.split(jax.random.key(0), max(len(start), 1))
    directions = [
        s * jax.random.normal(k, p.shape, p.dtype)
        for k, p, s in zip(keys, start, sizes, strict=False)
    ]

    def of(function, x):
        out, tangent = jax.jvp(lambda v: function(v, x), (start,), (directions,))
        return out, [tangent] if _is_inexact(out.dtype) else []

    return of(outputs, inputs), jax.vmap(lambda x: of(one, x))(inputs), of(outputs, moved)


def _backward(outputs, one, start, sizes, inputs, moved, order):
    """Outputs, and the gradients of one combination of them, for functions without a forward rule.

    A gradient is a sum over the rows: those of single rows are added up.
    """
    shape = jax.eval_shape(outputs, start, inputs)
    weights = jax.random.normal(jax.random.key(0), shape.shape, shape.dtype)

    def of(function, x, weight):
        out, pull = jax.vjp(lambda v: function(v, x), start)
        return out, [s * g for s, g in zip(sizes, pull(weight)[0], strict=True)]

    def flat(pair):
        return pair[0], [g.reshape(1, -1) for g in pair[1]]

    each = jax.vmap(lambda x, weight: of(one, x, weight))(inputs, weights)
    summed = each[0], [jnp.sum(g, axis=0) for g in each[1]]
    whole, others = of(outputs, inputs, weights), of(outputs, moved, weights[order])
    return flat(whole), flat(summed), flat(others)


def _close(first, second, floor, tolerance):
    """Whether rows agree to a tolerance of their own size, or to rounding of the largest."""
    magnitude = jnp.abs(jnp.where(jnp.isfinite(first), first, 0))
    row = jnp.max(magnitude, axis=1, keepdims=True, initial=0)
    bound = tolerance * row + tolerance / 50 * (jnp.max(magnitude, initial=0) + floor)
    same = (first == second) | (jnp.isnan(first) & jnp.isnan(second))
    return jnp.all(same | (jnp.abs(first - second) <= bound))
