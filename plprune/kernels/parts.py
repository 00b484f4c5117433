# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel split into the parts of its leaves and of the model's nodes."""

from collections.abc import Mapping
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from plprune.compilation import compile_once
from plprune.graph.tracing import leaf_paths
from plprune.independence import run_where_independent
from plprune.kernels.contraction import example_jacobians, leaf_contractions
from plprune.kernels.layerwise import term_kernels
from plprune.kernels.problem import Problem, make_problem
from plprune.types import Apply, Inputs, Member, NodeGroup, Params

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@compile_once("params", "inputs", "other", run=run_where_independent)
def leaf_kernels(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    other: Inputs | None = None,
    *,
    method: str = "auto",
    tile: int | None = None,
    independent: bool = False,
) -> PyTree[Float[Array, "b c b2 c2"]]:
    """A tree like `params` with each leaf's own kernel; their sum is `tangent_kernel`.

    Arguments and errors are those of `tangent_kernel`. Leaves that are unused or not real have
    kernel zero. Memory is one kernel per leaf.
    """
    with jax.default_matmul_precision("highest"):
        problem = make_problem(
            apply, params, inputs, other, method, tile, independent=independent, join=False
        )
        kernels = _by_leaf(problem, tile)
    treedef = jax.tree.structure(params)
    zero = jnp.zeros(_shape(problem), problem.dtype)
    return jax.tree.unflatten(treedef, [kernels.get(k, zero) for k in range(treedef.num_leaves)])


@compile_once("params", "inputs", "other", run=run_where_independent)
def node_kernels(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    groups: Mapping[str, NodeGroup],
    other: Inputs | None = None,
    *,
    independent: bool = False,
) -> tuple[dict[str, Float[Array, "g b c b2 c2"]], Float[Array, "b c b2 c2"]]:
    """Per node the kernel of the parameters that compute it, and the kernel of all others.

    Node i's part K_i comes from its producer slices: incoming weights, bias, scale. Together,
    ``sum_i K_i + rest = K``. In a net with one hidden layer of gated units and no output bias,
    gates g give the kernel ``sum_i g_i^2 K_i`` of those parameters.

    Args:
      apply: As for `tangent_kernel`.
      params: The tree in which `groups` were found.
      inputs: Tree of arrays [b, ...].
      groups: From `find_nodes`, or a part of it.
      other: Second batch for the columns.
      independent: As for `tangent_kernel`.

    Returns:
      ``({name: [g, b, c, b', c']}, rest)``. Memory is a kernel per node and the whole Jacobian.

    Raises:
      ValueError: as `tangent_kernel`, or a group whose leaf `params` does not have.
    """
    with jax.default_matmul_precision("highest"):
        problem = make_problem(
            apply, params, inputs, other, "contraction", None, independent=independent
        )
        left = example_jacobians(problem, inputs)
        right = left if other is None else example_jacobians(problem, other)
    paths = [leaf_paths(params)[k] for k in problem.real]
    total = sum(
        (_einsum("trp,uqp->truq", a, b) for a, b in zip(left, right, strict=True)),
        start=jnp.zeros(_shape(problem), problem.dtype),
    )
    kernels = {}
    for name, group in groups.items():
        kernels[name] = jnp.zeros((group.size, *_shape(problem)), problem.dtype)
        for member in group.producers:
            if member.path not in paths:
                raise ValueError(f"groups[{name!r}] names the leaf {member.path!r}, not in params.")
            leaf = paths.index(member.path)
            shape = problem.leaves[leaf].shape
            part = _member_kernels(left[leaf], right[leaf], shape, member, group.size)
            kernels[name] = kernels[name] + part
    return kernels, total - sum(jnp.sum(k, axis=0) for k in kernels.values())


def _by_leaf(problem: Problem, tile):
    """Kernels by position in the original tree."""
    if not problem.leaves or 0 in _shape(problem):
        return {}
    if not problem.by_layer:
        return dict(zip(problem.real, leaf_contractions(problem, tile), strict=True))
    if not problem.taps.terms:
        return {}
    kernels = term_kernels(problem, tile)
    leaves = [problem.real[term.leaves[0]] for term in problem.taps.terms]
    return dict(zip(leaves, kernels, strict=True))


def _shape(problem):
    rows, columns = problem.sizes
    return rows, problem.num_seeds, columns, problem.num_seeds


def _member_kernels(left, right, shape, member: Member, size: int):
    """Kernels [g, b, c, b', c'] of one leaf's slices along one axis, added up per node."""
    left, right = (
        jnp.moveaxis(j.reshape(*j.shape[:2], *shape), 2 + member.axis, 2) for j in (left, right)
    )
    left, right = (j.reshape(*j.shape[:3], prod(j.shape[3:])) for j in (left, right))
    slices = _einsum("trxp,uqxp->xtruq", left, right)
    # Positions of no node go to a bin of their own, which is dropped.
    bins = jnp.where(member.index < 0, size, member.index)
    return jax.ops.segment_sum(slices, bins, num_segments=size + 1)[:size]
