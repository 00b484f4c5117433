"""What is measured on a network right after its nodes were chosen."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_pruning.subject import HELD_OUT, Data, Trainer
from plprune.constants import lipschitz_constant
from plprune.constants.ends import kernel_ends
from plprune.costs import flops, parameters

HESSIAN_EXAMPLES = 2000  # Training examples in the Hessian; all of them where there are fewer.
_HESSIAN_TOL = 1e-4


def conditioning(subject: Trainer, params: Any, data: Data) -> dict[str, float | None]:
    """Kappa and the PL constant on held-out examples, in float64; None where not resolved."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)
        held_out = jnp.asarray(np.asarray(data.test_inputs[:HELD_OUT]), jnp.float64)
        # Outputs less their initial values have the same kernel.
        ends = _kernel_ends(subject.model.apply)(wide, held_out)
        if not ends.lowest.resolved:
            return {"kappa": None, "pl_constant": None}
        low, high = float(ends.lowest.value), float(ends.highest.value)
        return {"kappa": high / low, "pl_constant": low / len(held_out)}


def hessian_norm(subject: Trainer, params: Any, state: Any, data: Data) -> float:
    """The Lipschitz constant of the training loss's gradient, by Lanczos."""
    batch = data.inputs[:HESSIAN_EXAMPLES], data.targets[:HESSIAN_EXAMPLES]
    estimate = _hessian_constant(subject)(params, state, batch)
    if not estimate.resolved:
        raise ValueError("the Hessian at the start of training could not be resolved.")
    return float(estimate.value)


def size_of(subject: Trainer, params: Any, data: Data) -> dict[str, float]:
    """Parameters, and FLOPs of one forward pass of one example."""
    shape = jax.ShapeDtypeStruct((1, *data.test_inputs.shape[1:]), data.test_inputs.dtype)
    return {"parameters": parameters(params), "flops": _flops(subject, shape)}


@cache
def _flops(subject, shape):
    return flops(lambda p, x: subject.model.apply(p, {}, x), subject.model.params, shape)


@cache
def _kernel_ends(apply):
    def ends(params, inputs):
        return kernel_ends(
            lambda p, x: apply(p, {}, x), params, inputs, method="auto", key=None, tol=1e-6
        )

    return jax.jit(ends)


@cache
def _hessian_constant(subject):
    def constant(params, state, batch):
        key = jax.random.key(0)  # A start of Lanczos that is the same for all methods.
        return lipschitz_constant(
            lambda p, b: subject.loss(p, state, *b), params, batch, key=key, tol=_HESSIAN_TOL
        )

    return jax.jit(constant)
