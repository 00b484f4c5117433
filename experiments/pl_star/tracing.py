# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on F(w) = y with everything that the theory speaks of measured on its way."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.pl_star.config import Config
from experiments.pl_star.networks import System, examples, perceptron
from experiments.sharding import divided, whole
from plprune.constants import hessian_norm, lipschitz_constant

ATTEMPTS = 8
ROUNDING = 1e-9  # Relative slack of a comparison in float64.


class Trace(NamedTuple):
    """What was seen at each step (before it), and at some of them."""

    loss: jax.Array  # 1/2 |F(w) - y|^2.
    ratio: jax.Array  # |grad L|^2/(2 L).
    lowest: jax.Array  # lambda_min(K), 0 where parameters are fewer than outputs.
    highest: jax.Array  # lambda_max(K), NaN there: nothing asks for it.
    distance: jax.Array  # From w0.
    length: jax.Array  # Of the path so far.
    smoothness: jax.Array  # [checks]: largest |eigenvalue| of the Hessian of L.
    hessian_norm: jax.Array  # [checks]: |H_F|, NaN there too.
    kernel_change: jax.Array  # |K - K0| / |K0| at the end, in the spectral norm.


@functools.cache
def descent_system(config: Config, width: int, seed: int) -> System:
    """A network of this width on the `examples` images."""
    inputs, targets = examples(config.dataset, config.examples, seed)
    apply, init = perceptron(inputs.shape[1], width, config.parameterization)
    return System(apply, init(seed), inputs, targets)


@functools.cache
def descent_trace(config: Config, width: int, seed: int) -> tuple[Trace, float]:
    """The run of `traced` on `descent_system`; figures share it."""
    return traced(descent_system(config, width, seed), config.steps, config.checks)


def traced(system: System, num_steps: int, checks: int) -> tuple[Trace, float]:
    """Gradient descent at eta = 1/beta, and beta.

    beta is the largest curvature that the run itself meets: it is raised, and the run repeated,
    until it does not meet a larger one.
    """
    run = _compiled(system.apply, num_steps, checks)
    arguments = system.params, system.inputs, system.targets
    smoothness = float(_curvature(system.apply)(*arguments))
    for _ in range(ATTEMPTS):
        trace = run(*arguments, 1 / smoothness)
        met = float(jnp.max(trace.smoothness))
        if met <= smoothness * (1 + ROUNDING):
            break
        smoothness = 1.1 * met
    return jax.tree.map(np.asarray, trace), smoothness


def square_loss(apply):
    """``(params, (inputs, targets)) -> 1/2 |F - y|^2``, a sum."""

    def loss(params, batch):
        return jnp.sum((apply(params, batch[0])[:, 0] - batch[1]) ** 2) / 2

    return loss


def curvature(apply, params, inputs, targets):
    """The largest |Hessian eigenvalue| of the loss."""
    options = {"key": jax.random.key(1), "tol": 1e-3, "max_steps": 40}
    batch = divided((inputs, targets))
    return lipschitz_constant(square_loss(apply), params, batch, **options).value


@functools.cache
def _curvature(apply):
    return jax.jit(functools.partial(curvature, apply))


@functools.cache
def _compiled(apply, num_steps, checks):
    return jax.jit(lambda *arguments: _trace(apply, num_steps, checks, *arguments))


def _trace(apply, num_steps, checks, params, inputs, targets, step_size):
    start, unravel = ravel_pytree(params)

    def jacobian(vector):
        return divided(jax.jacrev(lambda v: apply(unravel(v), inputs)[:, 0])(vector))

    def step(carry, _):
        vector, length = carry
        residual, jac = apply(unravel(vector), inputs)[:, 0] - targets, jacobian(vector)
        gradient, square = residual @ jac, residual @ residual
        moved = step_size * jnp.linalg.norm(gradient)
        seen = (
            square / 2, gradient @ gradient / square, *_ends(jac),
            jnp.linalg.norm(vector - start), length,
        )  # fmt: skip
        return (vector - step_size * gradient, length + moved), seen

    def stretch(carry, _):
        here = unravel(carry[0])
        bent = _bent(apply, here, inputs) if len(targets) <= start.size else jnp.nan
        curved = curvature(apply, here, inputs, targets)
        carry, seen = jax.lax.scan(step, carry, length=num_steps // checks)
        return carry, (seen, curved, bent)

    (end, _), (seen, curved, bent) = jax.lax.scan(stretch, (start, 0.0), length=checks)
    first, last = jacobian(start), jacobian(end)
    first, last = whole((first @ first.T, last @ last.T))
    change = jnp.linalg.norm(last - first, 2) / jnp.linalg.norm(first, 2)
    return whole(Trace(*(values.reshape(-1) for values in seen), curved, bent, change))


def _bent(apply, params, inputs):
    options = {"key": jax.random.key(2), "tol": 1e-2, "max_steps": 24}
    return hessian_norm(apply, params, divided(inputs), **options).value


def _ends(jacobian):
    """The extreme eigenvalues of K = J J'."""
    if jacobian.shape[0] > jacobian.shape[1]:
        return jnp.zeros(()), jnp.full((), jnp.nan)
    spectrum = jnp.linalg.eigvalsh(whole(jacobian @ jacobian.T))
    return spectrum[0], spectrum[-1]
