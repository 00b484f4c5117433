"""What gates minimise: the condition number of the gated model's tangent kernel on a probe."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.kernels import projected_kernel
from plprune.nodes import gate
from plprune.operators import flat_outputs, jacobian_transpose_product
from plprune.spectra import extreme_eigenpairs
from plprune.types import Apply, Gates, Inputs, NodeGroups, Params

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Slope(NamedTuple):
    """The value of an objective at some gates and its derivative in them."""

    value: Float[Array, ""]
    gradient: Gates


Objective = Callable[[Apply, Params, NodeGroups, Gates, Inputs, PRNGKeyArray], Slope]


def log_condition_number(num_smallest: int = 5) -> Objective:
    """The objective log lambda_max(K) - log(mean of the `num_smallest` lowest eigenvalues of K).

    K [b, b] is the tangent kernel of one random +-1 combination of the outputs, shared by the
    batch: a plain sum of logits would be blind to cross-entropy, whose gradient sums to zero over
    classes. Gates act through `gate`, and derivatives of the model are taken with respect to the
    ungated parameters. By Hellmann-Feynman ``d lambda = d |J(g)' u|^2`` with the eigenvector u held
    fixed, so the slope in all gates costs the kernel, its extreme eigenpairs, and a gradient of
    `num_smallest` + 1 squared vector-Jacobian products; derived in docs/mathematics/pl_pruning.md.

    Args:
      num_smallest: How many of the lowest eigenvalues are averaged, at least 1: the mean is
        smooth where eigenvalues cross, and less noisy than the lowest alone.

    Returns:
      ``objective(apply, params, groups, gates, inputs, key) -> Slope``; `key` draws the
      combination. Where the kernel is not finite the slope is zero. Eigenvalues below what the
      dtype resolves count as that floor.

    Raises:
      ValueError: `num_smallest` below 1, and when called with fewer examples than that.
    """
    if num_smallest < 1:
        raise ValueError(f"num_smallest must be at least 1, got {num_smallest}.")

    def slope(apply, params, groups, gates, inputs, key):
        outputs = jax.eval_shape(flat_outputs(apply), params, inputs)
        signs = jax.random.rademacher(key, outputs.shape[1:], outputs.dtype)
        gated = _gated(apply, groups)
        kernel = projected_kernel(gated(gates), params, inputs, signs)
        pairs = extreme_eigenpairs(kernel, num_smallest=num_smallest)
        low = jnp.maximum(jnp.mean(pairs.smallest), pairs.slack)
        high = jnp.maximum(pairs.largest, jnp.finfo(kernel.dtype).tiny)
        vectors = jnp.concatenate([pairs.largest_vector[None], pairs.smallest_vectors.T])
        weights = jnp.full(num_smallest, -1 / num_smallest, kernel.dtype) / low
        weights = jnp.concatenate([1 / high[None], weights])

        def surrogate(gates):
            def squared(vector):
                pull = jacobian_transpose_product(gated(gates), params, inputs)
                return optax.tree.norm(pull(vector[:, None] * signs[None]), squared=True)

            return _dot(weights, jax.vmap(squared)(vectors))

        return _finite(jnp.log(high / low), jax.grad(surrogate)(gates))

    return slope


def _gated(apply, groups):
    """Gates to the gated model as a function of its ungated parameters."""
    return lambda gates: lambda params, inputs: apply(gate(params, groups, gates), inputs)


def _finite(value, gradient):
    """No slope where anything is not finite."""
    ok = (
        jnp.isfinite(value) & jnp.stack([jnp.all(jnp.isfinite(g)) for g in gradient.values()]).all()
    )
    return Slope(value, {name: jnp.where(ok, g, 0) for name, g in gradient.items()})
