# SPDX-License-Identifier: Apache-2.0
"""What can be told apart from rounding: the arithmetic that a model computes in, and estimates."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from plprune.graph.leaves import differentiable
from plprune.graph.precision import rounding_dtypes
from plprune.graph.tracing import Graph, trace
from plprune.spectra import RitzEnds
from plprune.spectra.scaling import smallest_resolved
from plprune.types import Estimate, Params


class Arithmetic(NamedTuple):
    """The coarsest of the floating-point numbers that a function computes in."""

    eps: float
    smallest: float  # Numbers below may have lost digits to underflow.

    def rounding(self, size: int) -> float:
        """What rounding moves eigenvalues by, relative to the largest, at most in practice.

        max(10, sqrt n) eps, as the factors of `plprune.spectra.factors` have it.
        """
        return max(10.0, size**0.5) * self.eps


def real_leaves(
    function: Callable[[Params, Any], Array], params: Params
) -> tuple[Callable[[list[Array], Any], Array], list[Array]]:
    """`function` of the floating-point leaves alone, and these, in at least float32.

    Integers, booleans and random keys are held fixed.

    Raises:
      ValueError: complex leaves, whose Jacobians are not those of real numbers.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            where = jax.tree_util.keystr(path) or "the root"
            raise ValueError(
                f"params must hold no complex numbers, got {dtype} at {where}; make real and "
                "imaginary part leaves of their own."
            )
    reduced, leaves, _ = differentiable(function, params)
    return reduced, leaves


def traced(
    function: Callable[..., Array], leaves: Sequence[Array], *args: Any, name: str
) -> tuple[jax.ShapeDtypeStruct, Arithmetic]:
    """Shape and dtype of ``function(leaves, *args)``, and the arithmetic it is computed in.

    Raises:
      ValueError: a result that is not one array of real floating-point numbers.
    """
    graph = trace(function, leaves, *args)
    shapes = [graph.avals[v] for v in graph.outputs]
    if len(shapes) != 1:
        raise ValueError(f"{name} must return one array, got {len(shapes)}.")
    (shape,) = shapes
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(f"{name} must return real numbers, got {shape.dtype}.")
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype), _arithmetic(graph, leaves)


def magnitude(ends: RitzEnds) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The largest |Ritz value|, and how much farther from zero an eigenvalue may lie."""
    sizes = jnp.abs(ends.values)
    value = jnp.max(sizes)
    outward = jnp.array([-1, 1], ends.values.dtype) * ends.values + ends.margins
    return value, jnp.maximum(jnp.max(outward) - value, 0)


def estimate(
    value: Float[Array, "..."],
    error: Float[Array, "..."],
    arithmetic: Arithmetic,
    *,
    scale: Float[Array, "..."] | None = None,
    is_clear: Bool[Array, "..."] | bool = True,
) -> Estimate:
    """The value where it is resolved, else zero with an error that bounds the truth.

    Resolved: `is_clear`, finite, larger than its error, and computed from numbers of a `scale`, by
    default the value's own, that underflow within the function cannot have touched.
    """
    tiny = float(jnp.finfo(value.dtype).tiny)
    error = error + tiny
    finite = jnp.isfinite(value) & jnp.isfinite(error)
    is_safe = (value if scale is None else scale) > arithmetic.smallest
    resolved = is_clear & finite & is_safe & (value > error)
    bound = jnp.where(finite, jnp.abs(value) + error + arithmetic.smallest, jnp.inf)
    return Estimate(jnp.where(resolved, value, 0), jnp.where(resolved, error, bound), resolved)


def _arithmetic(graph: Graph, leaves):
    # Derivatives are rounded to the leaves' dtypes, whatever the function computes in.
    return of_dtypes(rounding_dtypes(graph) | {jnp.result_type(leaf) for leaf in leaves})


def of_dtypes(dtypes: Iterable[Any]) -> Arithmetic:
    """The arithmetic of numbers that are rounded to any of these dtypes."""
    dtypes = list(dtypes)
    eps = max((float(jnp.finfo(d).eps) for d in dtypes), default=0.0)
    return Arithmetic(eps, max(map(smallest_resolved, dtypes), default=0.0))
