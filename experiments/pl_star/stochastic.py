# SPDX-License-Identifier: Apache-2.0
"""The loss of gradient descent, and the mean loss of its stochastic form, beside their rates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.pl_star.config import Config
from experiments.pl_star.networks import num_parameters
from experiments.pl_star.tracing import ROUNDING, curvature, descent_system, descent_trace
from experiments.sharding import divided, whole
from plprune.constants import descent_rate, stochastic_rate

WATCHED = 4  # Of the repeats, on whose paths the constants are checked.
MARGIN = 1.1  # Constants of a path that is not yet known; checked along it.


def rate(config: Config, seed: int):
    """Gradient descent at 1/beta, and stochastic gradient descent for each size of batch."""
    width = config.widths[-1]
    trace, smoothness = descent_trace(config, width, seed)
    mu = trace.lowest.min()
    bound = float(descent_rate(mu, smoothness).factor) ** np.arange(len(trace.loss)) * trace.loss[0]
    system = descent_system(config, width, seed)
    found = {
        "gd/parameters": num_parameters(system.params),
        "gd/rate_violations": int((trace.loss > bound * (1 + ROUNDING)).sum()),
        "gd/pl_constant": mu,
        "gd/smoothness": smoothness,
        "gd/loss": trace.loss,
        "gd/bound": bound,
    }
    of_examples = float(_example_smoothness(system.apply)(system.params, system.inputs))
    constants = mu / MARGIN, MARGIN * smoothness, MARGIN * of_examples
    for size in config.batch_sizes:
        one = _stochastic(config, system, constants, size, seed)
        found |= {f"sgd_{size}/{name}": value for name, value in one.items()}
    return found


def _stochastic(config, system, constants, size, seed):
    rate = stochastic_rate(*constants, num_examples=config.examples, batch_size=size)
    run = _compiled(system.apply, config.sgd_steps, config.checks, max(config.batch_sizes))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), size), config.repeats)
    arguments = system.params, system.inputs, system.targets
    losses, seen = run(*arguments, rate.step_size, size, keys)
    losses, (lowest, curved, worst) = np.asarray(losses), map(np.asarray, seen)
    mean, error = losses.mean(0), losses.std(0, ddof=1) / config.repeats**0.5
    bound = float(rate.factor) ** np.arange(losses.shape[1]) * mean[0]
    mu, smoothness, example_smoothness = constants
    broken = (lowest < mu) | (curved > smoothness) | (worst > example_smoothness)
    return {
        # The mean over the repeats has an error of its own.
        "rate_violations": int((mean - 3 * error > bound * (1 + ROUNDING)).sum()),
        "constant_violations": int(broken.sum()),
        "step_size": float(rate.step_size),
        "loss": mean,
        "bound": bound,
    }


@functools.cache
def _example_smoothness(apply):
    """The largest K_ii: |grad l_i|^2 = 2 K_ii l_i for l_i = 1/2 r_i^2."""

    @jax.jit
    def largest(params, inputs):
        vector, unravel = ravel_pytree(params)
        rows = jax.jacrev(lambda v: apply(unravel(v), inputs)[:, 0])(vector)
        return jnp.max(jnp.sum(rows**2, axis=1))

    return largest


@functools.cache
def _compiled(apply, num_steps, checks, largest):
    @jax.jit
    def run(params, inputs, targets, step_size, size, keys):
        start, unravel = ravel_pytree(params)

        def outputs(vector):
            return apply(unravel(vector), inputs)[:, 0]

        def step(vector, key):
            values, pull = jax.vjp(outputs, vector)
            residual = values - targets
            drawn = jax.random.randint(key, (largest,), 0, len(targets))
            # One compiled program for every size: the first `size` draws count.
            counted = jnp.where(jnp.arange(largest) < size, 1.0, 0.0)
            counts = jnp.zeros(len(targets)).at[drawn].add(counted)
            return vector - step_size * pull(counts * residual)[0], residual @ residual / 2

        def constants(vector):
            rows = jax.jacrev(outputs)(vector)
            lowest = jnp.linalg.eigvalsh(rows @ rows.T)[0]
            curved = curvature(apply, unravel(vector), inputs, targets)
            return lowest, curved, jnp.max(jnp.sum(rows**2, axis=1))

        def stretch(vectors, keys):
            seen = jax.lax.map(constants, whole(vectors[:WATCHED]))
            vectors, losses = jax.vmap(lambda v, k: jax.lax.scan(step, v, k))(vectors, keys)
            return vectors, (losses, seen)

        keys = jax.vmap(lambda key: jax.random.split(key, (checks, num_steps // checks)))(keys)
        starts = divided(jnp.broadcast_to(start, (len(keys), start.size)))  # Repeats apart.
        _, (losses, seen) = jax.lax.scan(stretch, starts, jnp.swapaxes(keys, 0, 1))
        return whole((jnp.swapaxes(losses, 0, 1).reshape(len(losses[0]), -1), seen))

    return run
