# SPDX-License-Identifier: Apache-2.0
"""How strongly outputs bend and move with the parameters: |H_F| and L_F = |DF| at a point."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from plprune.compilation import compile_once
from plprune.constants.ends import kernel_ends
from plprune.constants.resolution import estimate, magnitude, real_leaves, traced
from plprune.independence import check_independent, run_where_independent
from plprune.operators import flat_outputs, hessian_product
from plprune.spectra import ritz_ends
from plprune.types import Apply, Estimate, Inputs, Params


@compile_once("params", "inputs", "key", run=run_where_independent)
def hessian_norms(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    key: PRNGKeyArray,
    tol: float = 1e-3,
    max_steps: int = 60,
    tile: int = 1,
    independent: bool = False,
) -> Estimate:
    """Spectral norms [b, c] of the Hessians, in the parameters, of every single output.

    Lanczos on each output's Hessian until the end farther from zero, of either sign, has a residual
    below `tol`. The outputs are those of `apply` itself: no loss, no mean.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c].
      params: Tree of arrays; what cannot be differentiated is held fixed.
      inputs: Tree of arrays [b, ...].
      key: Draws the first Krylov directions.
      tol: Relative residual at which Lanczos stops; the value's own error is of order tol^2.
      max_steps: Most Hessian products per output.
      tile: Outputs that are iterated together; memory is ``tile * max_steps`` parameter vectors.
      independent: As for `tangent_kernel`: each output is differentiated on its example alone.

    Returns:
      `error` is that of `lipschitz_constant`. A Hessian that vanishes identically, as that of a
      linear model, has norm 0 and is resolved; one that is not finite is not.

    Raises:
      ValueError: no examples, no outputs, no parameters, complex leaves, a `tile` below 1, or a
        model that does not treat examples independently, as for `tangent_kernel`.
    """
    function, leaves = real_leaves(apply, params)
    vector, unravel = ravel_pytree(leaves)
    outputs, arithmetic = traced(flat_outputs(function), leaves, inputs, name="apply")
    shape = outputs.shape
    if vector.size == 0 or 0 in shape:
        raise ValueError(f"apply must have parameters and outputs, got {vector.size} and {shape}.")
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}.")
    check_independent(apply, params, inputs, independent=independent)

    def output(vector, place):
        example = jax.tree.map(lambda a: jnp.asarray(a)[place // shape[1]][None], inputs)
        return flat_outputs(function)(unravel(vector), example)[0, place % shape[1]]

    def norm(place):
        product = hessian_product(output, vector, place)
        options = {"key": key, "tol": tol, "max_steps": max_steps, "which": "magnitude"}
        return magnitude(ritz_ends(product, vector, **options))

    with jax.default_matmul_precision("highest"):
        places = jnp.arange(shape[0] * shape[1])
        size = min(tile, len(places)) if tile > 1 else None  # A batch of one compiles for longer.
        values, errors = jax.lax.map(norm, places, batch_size=size)
    errors = errors + 2 * arithmetic.rounding(vector.size) * values
    found = estimate(values, errors, arithmetic)
    found = found._replace(resolved=found.resolved | ((values == 0) & (errors == 0)))
    return jax.tree.map(lambda a: a.reshape(shape), found)


def hessian_norm(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    key: PRNGKeyArray,
    tol: float = 1e-3,
    max_steps: int = 60,
    tile: int = 1,
    independent: bool = False,
) -> Estimate:
    """|H_F|: the largest of `hessian_norms`, which see for arguments and errors [Liu 2022].

    The Jacobian of all b c outputs changes by at most sqrt(b c) sup |H_F| per unit of distance:
    derived in docs/mathematics/pl_star.md.
    """
    options = {"key": key, "tol": tol, "max_steps": max_steps, "tile": tile}
    each = hessian_norms(apply, params, inputs, independent=independent, **options)
    value = jnp.max(each.value)
    # The true maximum may belong to another output than the measured one.
    error = jnp.maximum(jnp.max(each.value + each.error) - value, 0)
    return Estimate(value, error, jnp.all(each.resolved))


def jacobian_norm(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    method: str = "auto",
    key: PRNGKeyArray | None = None,
    tol: float = 1e-6,
    independent: bool = False,
) -> Estimate:
    """L_F = |DF|_2 = sqrt(lambda_max(K)) at `params`, with K unnormalised over b c outputs.

    The supremum over a convex set is the Lipschitz constant of the outputs there; `seen_in_ball`
    bounds it from below. Methods and errors are those of `pl_constant`.
    """
    highest = kernel_ends(
        apply, params, inputs, method=method, key=key, tol=tol, independent=independent
    ).highest
    value = jnp.sqrt(highest.value)
    least = jnp.sqrt(jnp.maximum(highest.value - highest.error, 0))
    most = jnp.sqrt(highest.value + highest.error)
    return Estimate(value, jnp.maximum(most - value, value - least), highest.resolved)
