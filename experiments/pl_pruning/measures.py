"""What is measured on a network right after its nodes were chosen."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_pruning.subject import HELD_OUT, Data, Trainer
from plprune.constants import condition_number, lipschitz_constant, pl_constant
from plprune.costs import flops, parameters
from plprune.types import Estimate

HESSIAN_EXAMPLES = 2000  # Training examples in the Hessian; all of them where there are fewer.
_HESSIAN_TOL = 1e-4


def conditioning(subject: Trainer, params: Any, state: Any, data: Data) -> dict[str, float | None]:
    """Kappa and the PL constant on held-out examples, in float64; None where not resolved."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (params, state))
        held_out = jnp.asarray(np.asarray(data.test_inputs[:HELD_OUT]), jnp.float64)
        kappa, pl = _kernel_constants(subject)(*wide, held_out)
        return {"kappa": _resolved(kappa), "pl_constant": _resolved(pl)}


def hessian_norm(subject: Trainer, params: Any, state: Any, data: Data) -> float:
    """The Lipschitz constant of the training loss's gradient, by Lanczos."""
    batch = data.inputs[:HESSIAN_EXAMPLES], data.targets[:HESSIAN_EXAMPLES]
    estimate = _hessian_constant(subject)(params, state, batch)
    if not estimate.resolved:
        raise ValueError("the Hessian at the start of training could not be resolved.")
    return float(estimate.value)


def size_of(subject: Trainer, params: Any, state: Any, data: Data) -> dict[str, float]:
    """Parameters, and FLOPs of one forward pass of one example."""
    one = data.test_inputs[:1]
    count = flops(lambda p, x: subject.apply(p, state, x), params, one)
    return {"parameters": parameters(params), "flops": count}


def _resolved(estimate: Estimate) -> float | None:
    return float(estimate.value) if estimate.resolved else None


@cache
def _kernel_constants(subject):
    def constants(params, state, inputs):
        def apply(p, x):
            return subject.apply(p, state, x)

        return condition_number(apply, params, inputs), pl_constant(apply, params, inputs)

    return jax.jit(constants)


@cache
def _hessian_constant(subject):
    def constant(params, state, batch):
        key = jax.random.key(0)  # A start of Lanczos that is the same for all methods.
        return lipschitz_constant(
            lambda p, b: subject.loss(p, state, *b), params, batch, key=key, tol=_HESSIAN_TOL
        )

    return jax.jit(constant)
