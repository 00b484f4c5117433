# SPDX-License-Identifier: Apache-2.0
"""What is measured on a network: kappa, mu and L, and its size."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from experiments import sharding
from experiments.pl_pruning.data import Data
from experiments.pl_pruning.settings import Config
from experiments.pl_pruning.trainer import Trainer
from plprune.constants import lipschitz_constant
from plprune.constants.ends import dense_ends
from plprune.costs import flops, parameters
from plprune.operators import flat_outputs, hessian_product
from plprune.training import TrainState, scans_slowly

HESSIAN_EXAMPLES = 2000  # Training examples in the Hessian; all of them where there are fewer.
_HESSIAN_TOL = 1e-4  # Relative residual; the value is off by its square.
# The same for networks that are evaluated a part at a time.
_PART_EXAMPLES = 256
_PART_TOL = 1e-2
_KAPPA_TOL = 1e-6  # Relative, of both ends of the kernel.
_UNRESOLVED = "the Hessian of the training loss could not be resolved."


def conditioning(
    config: Config, trainer: Trainer, now: TrainState, data: Data, examples: int
) -> dict[str, float | None]:
    """Kappa and the PL constant on held-out examples, in float64; None where not resolved."""
    params, model = now.params, now.state.model
    with jax.enable_x64(True):
        wide, state, inputs = jax.tree.map(_wide, (params, model, data.test_inputs[:examples]))
        # Outputs less their initial values have the same kernel.
        kernel = _kernel(trainer.net.model.apply, config.all_outputs)(wide, state, inputs)
        full_rank = kernel.shape[0] * kernel.shape[1] <= parameters(params)
        # Apart: solvers take long to compile, and depend on the kernel's size alone.
        ends = dense_ends(kernel, full_rank, tol=_KAPPA_TOL)
        if not ends.lowest.resolved:
            return {"kappa": None, "pl_constant": None}
        low, high = float(ends.lowest.value), float(ends.highest.value)
        return {"kappa": high / low, "pl_constant": low / len(inputs)}


def hessian_norm(trainer: Trainer, now: TrainState, data: Data) -> float:
    """The Lipschitz constant of the training loss's gradient, by Lanczos."""
    size = min(HESSIAN_EXAMPLES, len(data.inputs))
    size = size if trainer.chunk >= size else min(_PART_EXAMPLES, size)
    batch = data.inputs[:size], data.targets[:size]
    if scans_slowly(now.params):
        return _norm_by_products(trainer, now, batch)
    estimate = _hessian_constant(trainer)(now.params, now.state, batch)
    if not estimate.resolved:
        raise ValueError(_UNRESOLVED)
    return float(estimate.value)


def _norm_by_products(trainer, now, batch) -> float:
    """ARPACK, whose products are one compiled call each and no iterations of a compiled loop."""
    vector, unravel = ravel_pytree(now.params)
    product = partial(_hessian_product(trainer), now.params, now.state, batch)
    operator = LinearOperator(
        (vector.size,) * 2,
        matvec=lambda v: np.asarray(ravel_pytree(product(unravel(jnp.asarray(v.ravel()))))[0]),
        dtype=vector.dtype,
    )
    first = np.random.default_rng(0).standard_normal(vector.size)
    options = {"tol": _PART_TOL, "v0": first, "ncv": 6, "return_eigenvectors": False}
    try:
        (value,) = eigsh(operator, k=1, which="LM", **options)
    except ArpackError as error:
        raise ValueError(_UNRESOLVED) from error
    return float(abs(value))


def tracked(
    config: Config, trainer: Trainer, now: TrainState, data: Data
) -> dict[str, float | None]:
    """Kappa, mu and L of a network in training."""
    found = conditioning(config, trainer, now, data, config.held_out)
    return found | {"lipschitz_constant": hessian_norm(trainer, now, data)}


def size_of(trainer: Trainer, now: TrainState, data: Data) -> dict[str, float]:
    """Parameters, and FLOPs of one forward pass of one example."""
    shape = jax.ShapeDtypeStruct((1, *data.test_inputs.shape[1:]), data.test_inputs.dtype)
    return {"parameters": parameters(now.params), "flops": _flops(trainer, shape)}


def _wide(leaf):
    array = np.asarray(leaf)
    return jnp.asarray(array, jnp.float64 if array.dtype.kind == "f" else array.dtype)


@cache
def _flops(trainer, shape):
    model = trainer.net.model
    pair = model.params, model.state
    return flops(lambda v, x: model.apply(v[0], v[1], x), pair, shape)


@cache
def _kernel(apply, all_outputs):
    def kernel(params, state, inputs):
        def model(p, x):
            outputs = flat_outputs(lambda p, x: apply(p, state, x))(p, x)
            if all_outputs:
                return outputs
            signs = jax.random.rademacher(jax.random.key(0), outputs.shape[1:], outputs.dtype)
            return jnp.matmul(outputs, signs[:, None])

        # Every device computes its rows and has all of them afterwards.
        return sharding.whole(sharding.kernel(model, params, inputs))

    return jax.jit(kernel)


@cache
def _hessian_product(trainer):
    def product(params, state, batch, tangent):
        return hessian_product(lambda p, b: trainer.mean_loss(p, state, *b), params, batch)(tangent)

    return jax.jit(product)


@cache
def _hessian_constant(trainer):
    tol = _HESSIAN_TOL if trainer.chunk >= HESSIAN_EXAMPLES else _PART_TOL

    def constant(params, state, batch):
        key = jax.random.key(0)  # A start of Lanczos that is the same for all methods.
        return lipschitz_constant(
            lambda p, b: trainer.mean_loss(p, state, *b), params, batch, key=key, tol=tol
        )

    return jax.jit(constant)
