# SPDX-License-Identifier: Apache-2.0
"""The PL constant: the least eigenvalue of the tangent kernel, of a batch or of its parts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.compilation import compile_once
from plprune.constants.ends import kernel_ends
from plprune.independence import batch_size, is_proven, run_where_independent
from plprune.types import Apply, Estimate, Inputs, Params


def pl_constant(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    method: str = "auto",
    key: PRNGKeyArray | None = None,
    tol: float = 1e-6,
    mesh: Mesh | None = None,
    independent: bool = False,
) -> Estimate:
    """The PL constant mu = lambda_min(K)/b at `params`, of the mean loss over b examples.

    With L = 1/(2b) sum_i |f(x_i) - y_i|^2 it gives 1/2 |grad L|^2 >= mu L [Liu 2022]; K is the
    tangent kernel [b c, b c]. On part of the data it is optimistic: that part's K is a principal
    submatrix, whose least eigenvalue is at least the whole one's (interlacing); see
    `minibatch_pl_constants`.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c].
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      method: "dense" forms K and certifies its ends; "svd" takes the singular values of the whole
        Jacobian, which resolve lambda_min down to eps^2 lambda_max instead of eps lambda_max, at
        the memory of b c p numbers; "matrix_free" needs products with K only, and a `key`, over
        which its error holds with a probability of at least 99.8 %: up to 1,000 outputs b c
        Lanczos, above them `matrix_free_ends` with a `tol` of at least 1e-3. "auto" is "dense",
        followed by "svd" where a kernel in float32 did not resolve lambda_min, if the Jacobian has
        at most 64 MiB: under `jit` its space is taken in any case, since only values tell. With a
        larger one `resolved` is False and the caller decides between "svd" and float64.
      key: For "matrix_free".
      tol: Relative residual at which iterations stop.
      mesh: Devices, over all of whose axes the rows of K and the examples are split: a device holds
        its share of K and little else (see `sharded_extreme_eigenpairs`), or for "matrix_free" of
        the examples. Where "dense" finds no certificate, nothing is resolved, and "auto" is
        "dense". With several processes (`jax.distributed`) pass global arrays, or the same host
        arrays in each. Up to 640 outputs b c every device does all.
      independent: As for `tangent_kernel`; its check is that of every method.

    Returns:
      Unresolved (value 0, `error` bounds the truth) where parameters are fewer than b c or
      lambda_min is below what the dtype resolves, about 100 eps lambda_max. The dtype is the
      coarsest that the model rounds to: one that casts to bfloat16 has its eps, whatever its
      parameters and outputs are. Leaves that are not floating-point numbers are held fixed.

    Raises:
      ValueError: an unknown method, a missing key, complex leaves, outputs that are not real, "svd"
        with a mesh, a number of devices that does not divide b, or as `tangent_kernel`.
    """
    options = {"method": method, "key": key, "tol": tol, "mesh": mesh, "independent": independent}
    low = kernel_ends(apply, params, inputs, **options).lowest
    return per_example(low, max(batch_size(inputs), 1))


@compile_once("end")
def per_example(end: Estimate, size: int) -> Estimate:
    """An end of the kernel's spectrum over the number of examples, as the mean loss has it."""
    value, error = end.value / size, end.error / size
    tiny = float(jnp.finfo(value.dtype).tiny)  # What the divisions may lose to underflow.
    resolved = end.resolved & (value > tiny)
    return Estimate(jnp.where(resolved, value, 0), error + tiny, resolved)


class MinibatchConstants(NamedTuple):
    """PL constants of the parts of a data set, and what they say of the whole."""

    batches: Estimate  # Of each batch's own mean loss, fields [batches].
    whole_at_most: Float[Array, ""]  # Bounds the whole data set's constant from above only.


@compile_once("params", "inputs", run=run_where_independent)
def minibatch_pl_constants(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    num_batches: int,
    method: str = "auto",
    tol: float = 1e-6,
    independent: bool = False,
) -> MinibatchConstants:
    """`pl_constant` of consecutive equal parts of `inputs`, one after the other.

    For data whose whole kernel does not fit: memory is that of one part, and the loop compiles
    once. A part's constant holds for its own mean loss, as a step on that part alone sees it. The
    whole kernel has every part's as a principal submatrix, so by interlacing
    ``lambda_min(K) <= min lambda_min(K_part)``: the parts never bound the whole constant from
    below, and the upper bound is loose, for examples of different parts may be nearly alike.

    Args:
      apply: As for `pl_constant`.
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      num_batches: How many parts; it must divide b. Static under jit.
      method: As for `pl_constant`, "matrix_free" excepted.
      tol: As for `pl_constant`.
      independent: As for `pl_constant`.

    Raises:
      ValueError: as `pl_constant`, or a `num_batches` that is below 1 or does not divide b.
    """
    size = batch_size(inputs)
    if num_batches < 1 or size % num_batches:
        raise ValueError(f"num_batches must divide the {size} examples, got {num_batches}.")
    parts = jax.tree.map(
        lambda a: a.reshape(num_batches, size // num_batches, *a.shape[1:]), inputs
    )
    for k in range(0 if independent else num_batches):  # The loop below sees no values.
        part = jax.tree.map(lambda a: a[k], parts)  # noqa: B023
        if is_proven(apply, params, part):
            break
    options = {"method": method, "tol": tol, "independent": True}
    batches = jax.lax.map(lambda x: pl_constant(apply, params, x, **options), parts)
    return MinibatchConstants(batches, jnp.min(batches.value + batches.error) / num_batches)
