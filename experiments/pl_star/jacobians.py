"""Conditioning of random Jacobians and of networks against parameters per output."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.pl_star.config import Config
from experiments.pl_star.networks import examples, model, num_parameters
from plprune.constants import jacobian_log_condition, log_condition_bound, log_conditions

SHAPES = ((10, 12), (10, 100), (50, 60))
OUTPUTS = 10


def jacobian(config: Config, seed: int):
    """Means over random Gaussian Jacobians, and one random network of each width."""
    key = jax.random.key(seed)
    found = {}
    for n, m in SHAPES:
        mean = jnp.mean(_draws(n, m, config.draws)(jax.random.fold_in(key, 1000 * n + m)))
        found[f"{n}x{m}/random_jacobian_log_kappa"] = float(mean)
        found[f"{n}x{m}/log_kappa_bound"] = log_condition_bound(n, m)
    means = [
        _draws(OUTPUTS, m, config.aspect_draws)(jax.random.fold_in(key, m))
        for m in config.parameters
    ]
    found["gaussian/log_kappa"] = np.array([float(values.mean()) for values in means])
    found["gaussian/parameters_per_output"] = np.array(config.parameters) / OUTPUTS
    for name in config.models:
        found |= _networks(config, name, seed)
    return found


@functools.cache
def _draws(n, m, count):
    return jax.jit(lambda key: log_conditions(n, m, key=key, num_draws=count))


def _networks(config, name, seed):
    pooled = name == "mlp"  # So that one more unit adds few parameters.
    inputs, _ = examples(config.dataset, config.model_examples, seed, pooled=pooled, flat=False)
    conditions, sizes = [], []
    for width in config.model_widths:
        apply, init = model(name, width, inputs.shape[1])
        params = init(seed)
        conditions.append(float(_condition(apply)(params, inputs)))
        sizes.append(num_parameters(params) / config.model_examples)
    conditions = np.array(conditions)
    return {
        # Not resolved where symmetries of relu leave the rank short.
        f"{name}/log_kappa": np.where(np.isfinite(conditions), conditions, np.nan),
        f"{name}/parameters_per_output": np.array(sizes),
    }


@functools.cache
def _condition(apply):
    def condition(params, inputs):
        vector, unravel = ravel_pytree(params)
        rows = jax.jacrev(lambda v: apply(unravel(v), inputs)[:, 0])(vector)
        return jacobian_log_condition(rows)

    return jax.jit(condition)
