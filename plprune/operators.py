# SPDX-License-Identifier: Apache-2.0
"""Products with Jacobians, tangent kernels and Hessians, none of which is ever formed.

Every function returns a callable on trees of the parameters' structure or on outputs ``[b, c]``;
`flat` turns one on trees into one on plain vectors, which is all that `plprune.spectra` knows.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from plprune.independence import check_independent
from plprune.types import Apply, Inputs, MatVec, Objective, Params


def flat_outputs(apply: Apply) -> Apply:
    """`apply` with its outputs [b, ...] flattened to [b, c]; a scalar per example has c = 1."""

    def flattened(params, inputs):
        outputs = apply(params, inputs)
        structure = jax.tree.structure(outputs)
        if structure != jax.tree.structure(0):
            raise ValueError(f"apply must return one array [b, ...], got the tree {structure}.")
        if jnp.ndim(outputs) == 0:
            raise ValueError("apply must return outputs [b, ...] with a batch axis, got a scalar.")
        return outputs.reshape(outputs.shape[0], prod(outputs.shape[1:]))

    return flattened


def jacobian_product(apply: Apply, params: Params, inputs: Inputs) -> MatVec:
    """``v -> J v``: a params-like tree to [b, c]. One forward-mode pass per product.

    Raises:
      ValueError: leaves of params that cannot be differentiated.
    """
    _check_differentiable(params)
    return _push(apply, params, inputs)


def _push(apply, params, inputs):
    def product(tangent):
        return jax.jvp(lambda p: flat_outputs(apply)(p, inputs), (params,), (tangent,))[1]

    return product


def jacobian_transpose_product(apply: Apply, params: Params, inputs: Inputs) -> MatVec:
    """``u -> J' u``: [b, c] to a params-like tree, summed over the batch. One VJP per product."""
    pullback = jax.vjp(lambda p: flat_outputs(apply)(p, inputs), params)[1]
    return lambda cotangent: pullback(cotangent)[0]


def tangent_kernel_product(
    apply: Apply, params: Params, inputs: Inputs, *, independent: bool = False
) -> MatVec:
    """``u -> K u`` on [b, c] with K = J J', without normalisation by b.

    One VJP and one JVP per product; memory is that of a gradient, never b^2 c^2.

    Args:
      apply: As for `tangent_kernel`, which this is a product with.
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      independent: As for `tangent_kernel`. The products are those of J J' for any function; with
        examples that influence each other no entry of K belongs to two examples.

    Raises:
      ValueError: `apply` does not treat examples independently, as for `tangent_kernel`.
    """
    check_independent(flat_outputs(apply), params, inputs, independent=independent)
    pull = jacobian_transpose_product(apply, params, inputs)
    push = _push(apply, params, inputs)  # Of what `pull` gives, which suits every leaf.
    return lambda cotangent: push(pull(cotangent))


def hessian_product(objective: Objective, params: Params, batch: Any) -> MatVec:
    """``v -> H v`` with H the Hessian of ``objective(params, batch)`` in the parameters.

    Forward over reverse [Pearlmutter 1994]: about two gradients per product. The Hessian carries
    the objective's own normalisation.

    Raises:
      ValueError: leaves of params that cannot be differentiated.
    """
    _check_differentiable(params)

    def product(tangent):
        gradient = jax.grad(lambda p: objective(p, batch))
        return jax.jvp(gradient, (params,), (tangent,))[1]

    return product


def gauss_newton_product(
    apply: Apply, loss: Callable[..., Array], params: Params, inputs: Inputs, *targets: Any
) -> MatVec:
    """``v -> J' B J v`` with B the Hessian of ``loss(outputs, *targets)`` in the outputs [b, c].

    `loss` returns a scalar and sets the normalisation: a mean over examples makes B that of the
    mean. Costs one JVP, one VJP and one product with B. Positive semidefinite where `loss` is
    convex in the outputs [Schraudolph 2002].

    Raises:
      ValueError: leaves of params that cannot be differentiated.
    """
    _check_differentiable(params)
    model = flat_outputs(apply)

    def product(tangent):
        outputs, pushed = jax.jvp(lambda p: model(p, inputs), (params,), (tangent,))
        curved = hessian_product(lambda y, t: loss(y, *t), outputs, targets)(pushed)
        return jacobian_transpose_product(apply, params, inputs)(curved)

    return product


def flat(matvec: MatVec, like: PyTree) -> Callable[[Float[Array, " p"]], Float[Array, " p"]]:
    """`matvec` on trees shaped as `like`, as a map of the vectors ``ravel_pytree(like)[0]``."""
    unravel = ravel_pytree(like)[1]
    return lambda vector: ravel_pytree(matvec(unravel(vector)))[0]


def mean_over_batches(product: Callable[[Any], MatVec], batches: Sequence[Any]) -> MatVec:
    """The mean of ``product(batch)`` over host batches, for data that a device cannot hold.

    Args:
      product: ``batch -> matvec``, such as ``lambda batch: hessian_product(f, params, batch)``.
        With a mean loss per batch the result is the product of the mean loss over all of them.
      batches: Trees of host arrays, all of the same shapes (an uneven rest would weigh too much).

    Returns:
      A matvec that walks through `batches` once per product and holds one batch on the device.
      The walk is a loop with one body, so it compiles once and runs inside jit and Lanczos.

    Raises:
      ValueError: no batches, or batches of different shapes.
    """
    if len(batches) == 0:
        raise ValueError("batches must hold at least one batch, got none.")
    shapes = [_shapes(batch) for batch in batches]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(f"batches must have equal shapes; batch {i} differs from batch 0.")

    def fetch(index):
        return jax.tree.map(np.asarray, batches[int(index)])

    def averaged(vector):
        def add(index, total):
            batch = jax.pure_callback(fetch, shapes[0], index)
            return jax.tree.map(jnp.add, total, product(batch)(vector))

        start = jax.tree.map(jnp.zeros_like, vector)
        total = jax.lax.fori_loop(0, len(batches), add, start)
        return jax.tree.map(lambda t: t / len(batches), total)

    return averaged


def _check_differentiable(params):
    """Integers, booleans and random keys have no tangents of their own kind to multiply."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            where = jax.tree_util.keystr(path) or "the root"
            raise ValueError(
                f"params must hold floating-point numbers only, got {dtype} at {where}; let the "
                "function close over leaves that stay fixed."
            )


def _shapes(batch):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), np.asarray(a).dtype), batch)
