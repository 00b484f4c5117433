# SPDX-License-Identifier: Apache-2.0
"""Loss surfaces of two parameters, and the curvature of a network's loss around a solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.pl_star.config import Config
from experiments.pl_star.networks import examples, perceptron

EXTENT = 2.5  # Of each surface, in both parameters.
SYSTEMS = {"overparameterised": 1, "underparameterised": 6}  # Examples.
NEWTON_STEPS = 40


def surface(config: Config, seed: int):
    """Losses of F(w) = w_1 tanh(w_0 x) on one and on six examples, and their best points."""
    found = {}
    line = jnp.linspace(-EXTENT, EXTENT, config.grid)
    grid = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    for name, count in SYSTEMS.items():
        key = jax.random.fold_in(jax.random.key(seed), count)
        inputs = jnp.linspace(0.5, 2.0, count) if count > 1 else jnp.ones(1)
        noise = 0.2 * jax.random.normal(key, (count,)) if count > 1 else 0.0
        targets = 1.2 * jnp.tanh(inputs) + noise
        losses, ends = _surface(grid, inputs, targets)
        spectra = _end_spectra(ends, inputs, targets)
        best = jnp.argmin(jax.vmap(_toy_loss, (0, None, None))(ends, inputs, targets))
        found |= {
            f"{name}/smallest_loss": float(_toy_loss(ends[best], inputs, targets)),
            f"{name}/flat_directions": int((spectra[best] < 1e-6 * spectra[best].max()).sum()),
            f"{name}/loss_surface": np.asarray(losses),
            f"{name}/ends": np.asarray(ends).reshape(-1),
        }
    return found


def _toy_loss(weights, inputs, targets):
    return jnp.sum((weights[1] * jnp.tanh(weights[0] * inputs) - targets) ** 2) / 2


@jax.jit
def _surface(grid, inputs, targets):
    """Losses on the grid, and where gradient descent ends from every 7th of its points."""

    def descend(start):
        def step(weights, _):
            return weights - 0.05 * jax.grad(_toy_loss)(weights, inputs, targets), None

        return jax.lax.scan(step, start, length=4000)[0]

    losses = jax.vmap(lambda w: _toy_loss(w, inputs, targets))(grid)
    return losses, jax.vmap(descend)(grid[:: len(grid) // 40])


@jax.jit
def _end_spectra(ends, inputs, targets):
    return jnp.linalg.eigvalsh(jax.vmap(lambda w: jax.hessian(_toy_loss)(w, inputs, targets))(ends))


def nonconvex(config: Config, seed: int):
    """The Hessian of the loss at points whose residual is +-delta e_1, next to a solution."""
    inputs, targets = examples(config.dataset, config.solution_examples, seed, pooled=True)
    apply, init = perceptron(inputs.shape[1], config.solution_width, config.parameterization)
    solve, spectra = _around(apply)
    solution, loss, hessian = solve(init(seed), inputs, targets)
    sizes = np.abs(np.linalg.eigvalsh(hessian))
    deltas = np.geomspace(1e-6, 1, config.deltas)
    lowest = np.array([
        [float(spectra(solution, inputs, targets, sign * delta)) for delta in deltas]
        for sign in (1, -1)
    ])  # fmt: skip
    return {
        "nonconvex/solution_loss": float(loss),
        "nonconvex/hessian_rank": int((sizes > 1e-9 * sizes.max()).sum()),
        "nonconvex/rank_needed": 2 * config.solution_examples + 1,
        "nonconvex/parameters": len(sizes),
        "nonconvex/negative_eigenvalue": lowest.min(axis=0)[0],
        "nonconvex/negative_share": float((lowest.min(axis=0) < 0).mean()),
        "nonconvex/deltas": deltas,
        "nonconvex/lowest_plus": lowest[0],
        "nonconvex/lowest_minus": lowest[1],
    }


@functools.cache
def _around(apply):
    def outputs(vector, inputs, unravel):
        return apply(unravel(vector), inputs)[:, 0]

    def newton(vector, inputs, targets, unravel):
        """Gauss-Newton to a point with F = targets: the nearest one to first order."""

        def step(vector, _):
            residual = outputs(vector, inputs, unravel) - targets
            rows = jax.jacrev(outputs)(vector, inputs, unravel)
            shift = rows.T @ jnp.linalg.solve(rows @ rows.T, residual)
            return vector - jnp.minimum(1, 1 / jnp.linalg.norm(shift)) * shift, None

        return jax.lax.scan(step, vector, length=NEWTON_STEPS)[0]

    @jax.jit
    def solve(params, inputs, targets):
        vector, unravel = ravel_pytree(params)
        vector = newton(vector, inputs, targets, unravel)
        loss = jnp.sum((outputs(vector, inputs, unravel) - targets) ** 2) / 2
        first = jax.hessian(lambda v: outputs(v, inputs, unravel)[0])(vector)
        return unravel(vector), loss, first

    @jax.jit
    def lowest(params, inputs, targets, delta):
        vector, unravel = ravel_pytree(params)
        shifted = newton(vector, inputs, targets.at[0].add(delta), unravel)

        def loss(v):
            return jnp.sum((outputs(v, inputs, unravel) - targets) ** 2) / 2

        return jnp.linalg.eigvalsh(jax.hessian(loss)(shifted))[0]

    return solve, lowest
