# SPDX-License-Identifier: Apache-2.0
"""In which floating-point numbers a traced function rounds."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from plprune.graph.primitives import PRIMITIVES
from plprune.graph.tracing import Equation, Graph, all_equations


def rounding_dtypes(graph: Graph) -> frozenset[DTypeLike]:
    """The floating-point dtypes, of real and imaginary parts, that some equation rounds to.

    Moving numbers around rounds nothing, nor does casting them to more bits: a function whose
    inputs alone are bfloat16 may well compute in float32.
    """
    return frozenset(dtype for e in all_equations(graph) for dtype in _rounds_to(graph, e))


def _rounds_to(graph: Graph, equation: Equation) -> list[DTypeLike]:
    if equation.subgraphs or not PRIMITIVES.of(equation).rounds:
        return []
    dtypes = [_inexact(graph, variable) for variable in equation.outputs]
    if equation.name == "convert_element_type":
        source = _inexact(graph, equation.inputs[0])
        dtypes = [d for d in dtypes if source is None or not _is_exact(source, d)]
    return [d for d in dtypes if d is not None]


def _inexact(graph, variable):
    dtype = getattr(graph.avals[variable], "dtype", None)
    is_inexact = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
    return jnp.finfo(dtype).dtype if is_inexact else None


def _is_exact(source, target):
    """Whether every number of one dtype is one of the other."""
    if target is None:
        return True
    old, new = jnp.finfo(source), jnp.finfo(target)
    return new.nmant >= old.nmant and new.maxexp >= old.maxexp and new.minexp <= old.minexp
