# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel of any function, its trace over outputs and its projections."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from plprune.compilation import compile_once
from plprune.independence import run_where_independent
from plprune.kernels.contraction import contracted_kernel
from plprune.kernels.layerwise import layerwise_kernel
from plprune.kernels.problem import Problem, make_problem
from plprune.operators import flat_outputs
from plprune.types import Apply, Inputs, Params


@compile_once("params", "inputs", "other", run=run_where_independent)
def tangent_kernel(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    other: Inputs | None = None,
    *,
    method: str = "auto",
    tile: int | None = None,
    blocks: int = 1,
    independent: bool = False,
) -> Float[Array, "b c b2 c2"]:
    """K[i, r, j, s] = <d f_r(x_i)/d params, d f_s(x'_j)/d params>, without normalisation.

    Parameters of fewer than 32 bits are raised to float32 first; leaves that hold no real numbers
    (integers, booleans, keys, complex numbers) are held constant. All products run at full
    precision. Differentiable, and works under jit and vmap.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c]; example i's output
        depends on example i's input only, in evaluation mode.
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      other: Second batch [b', ...] for the columns; the first one if None, and then no tile below
        the diagonal is computed.
      method: "layerwise" contracts outer products layer by layer wherever a layer has that form;
        "contraction" multiplies whole per-example Jacobians; "auto" takes for each layer the
        cheapest by counted operations and memory traffic of these two and, where the outputs see
        each channel as one number, one sum over positions that all outputs share. Functions that
        hold a loop of unknown length are contracted from forward-mode Jacobians in any case, and
        those with complex numbers between parameters and outputs from reverse-mode ones.
      tile: Examples per tile, at least 1; if None chosen to bound memory. Static under jit.
      blocks: In how many blocks of layers the kernel is summed up, at least 1, where it is made
        layer by layer. Memory for what the layers' parts are made of, and for derivatives, is then
        that of one block; each costs forward and backward passes of its own, and compilation.
      independent: Your word that example i's output depends on example i's input only, in the same
        way for every i; skips the check.

    Examples are evaluated one at a time, so that a model in which other examples, an example's
    place in the batch or their number enters is refused (BatchNorm in training mode, dropout of the
    batch's shape). The traced graph proves most models independent, at no cost in compilation;
    where it does not, the batch and its rows are run once and compared.

    Raises:
      ValueError: an unknown method, a tile or blocks below 1, inputs without a common batch axis,
        outputs that are not one real array [b, ...], or a model that does not treat examples
        independently, by the operation's name and line; one that is not proven to, where values
        are not at hand (under jit, vmap or grad).

    References:
      [Jacot 2018] for the kernel, [Novak 2022] for the costs of its algorithms; the outer products
      are derived in docs/mathematics/graph.md.
    """
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks}.")
    # Products of the model itself too: default precision on accelerators would spoil lambda_min.
    with jax.default_matmul_precision("highest"):
        problem = make_problem(apply, params, inputs, other, method, tile, independent=independent)
        return _kernel(problem, tile, blocks)


@compile_once("params", "inputs", "other", run=run_where_independent)
def traced_kernel(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    other: Inputs | None = None,
    *,
    method: str = "auto",
    tile: int | None = None,
    independent: bool = False,
) -> Float[Array, "b b2"]:
    """The kernel's sum over equal outputs, ``sum_r K[i, r, j, r]``; cheaper than K by a factor c.

    Arguments and errors are those of `tangent_kernel`.
    """
    with jax.default_matmul_precision("highest"):
        problem = make_problem(
            apply, params, inputs, other, method, tile, independent=independent, sums_outputs=True
        )
        return _kernel(problem, tile)[:, 0, :, 0]


@compile_once("params", "inputs", "projection", "other", run=run_where_independent)
def projected_kernel(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    projection: Float[Array, " c"] | Float[Array, "c q"],
    other: Inputs | None = None,
    *,
    method: str = "auto",
    tile: int | None = None,
    blocks: int = 1,
    independent: bool = False,
) -> Float[Array, "b b2"] | Float[Array, "b q b2 q"]:
    """The kernel of the outputs' combinations ``outputs @ projection``, shared by the batch.

    A `projection` [c] gives [b, b'], one [c, q] gives [b, q, b', q]. The cost is that of a model
    with q outputs. Independent random signs give in expectation the trace over outputs.

    Raises:
      ValueError: as `tangent_kernel`, or a projection whose first axis is not c.
    """
    projection = jnp.asarray(projection)
    model = flat_outputs(apply)
    num_outputs = jax.eval_shape(model, params, inputs).shape[1]
    if len(projection) != num_outputs:
        raise ValueError(f"projection must have {num_outputs} rows, got {len(projection)}.")
    directions = projection if projection.ndim == 2 else projection[:, None]

    def projected(p, x):
        outputs = model(p, x)
        return jnp.matmul(outputs, directions.astype(outputs.dtype))

    options = {"method": method, "tile": tile, "blocks": blocks, "independent": independent}
    kernel = tangent_kernel(projected, params, inputs, other, **options)
    return kernel[:, 0, :, 0] if projection.ndim == 1 else kernel


def _kernel(problem: Problem, tile: int | None, blocks: int = 1) -> Float[Array, "b r b2 r2"]:
    rows, columns = problem.sizes
    unused = problem.by_layer and not problem.taps.terms
    if rows * columns * problem.num_seeds == 0 or unused or not problem.leaves:
        shape = (rows, problem.num_seeds, columns, problem.num_seeds)
        return jnp.zeros(shape, problem.dtype)
    if not problem.by_layer:
        return contracted_kernel(problem, tile)
    return layerwise_kernel(problem, tile, blocks)
