# SPDX-License-Identifier: Apache-2.0
"""Conditioning of random Jacobians and of networks against parameters per output."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.pl_star.config import Config
from experiments.pl_star.networks import examples, model, num_parameters
from experiments.sharding import divided, whole
from plprune.constants import jacobian_log_condition, log_condition_bound, log_conditions

SHAPES = ((10, 12), (10, 100), (50, 60))
OUTPUTS = 10
RANK_TOLERANCE = 1e-10  # Relative; what symmetries force to zero is below 1e-14.


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
    conditions = np.array([float(values.mean()) for values in means])
    found |= _transition("gaussian", np.array(config.parameters) / OUTPUTS, conditions)
    for name in config.models:
        found |= _networks(config, name, seed)
    return found


@functools.cache
def _draws(n, m, count):
    return jax.jit(lambda key: log_conditions(n, m, key=key, num_draws=count))


def _networks(config, name, seed):
    if name == "resnet":
        return _residual_network(config, seed)
    pooled = name == "mlp"  # So that one more unit adds few parameters.
    inputs, _ = examples(config.dataset, config.model_examples, seed, pooled=pooled, flat=False)
    conditions, sizes = [], []
    for width in config.model_widths:
        apply, init = model(name, width, inputs.shape[1])
        params = init(seed)
        conditions.append(float(_condition(apply)(params, inputs)))
        sizes.append(num_parameters(params) / config.model_examples)
    return _transition(name, np.array(sizes), np.array(conditions))


def _residual_network(config, seed):
    """One ResNet against the number of examples.

    Rescaling a convolution in front of a normalisation or a relu changes no output, so that some
    parameters depend on others: what counts is the rank of DF on many examples.
    """
    counts = np.array(sorted(config.resnet_examples))
    inputs, _ = examples(config.dataset, counts[-1], seed, flat=False)
    apply, init = model("resnet", config.resnet_channels, inputs.shape[1])
    rows = np.asarray(_jacobian(apply)(init(seed), inputs))
    sigmas = [np.linalg.svd(rows[:n], compute_uv=False) for n in counts]
    rank = int((sigmas[-1] > RANK_TOLERANCE * sigmas[-1][0]).sum())
    conditions = [2 * np.log(s[0] / s[min(len(s), rank) - 1]) for s in sigmas]
    found = {"resnet/parameters": rows.shape[1], "resnet/independent_parameters": rank}
    return found | _transition("resnet", rank / counts, np.array(conditions))


def _transition(name, ratios, conditions):
    return {
        f"{name}/peak_ratio": ratios[conditions.argmax()],
        f"{name}/log_kappa": np.where(np.isfinite(conditions), conditions, np.nan),
        f"{name}/parameters_per_output": ratios,
    }


@functools.cache
def _condition(apply):
    jacobian = _jacobian(apply)
    return jax.jit(lambda params, inputs: jacobian_log_condition(jacobian(params, inputs)))


@functools.cache
def _jacobian(apply):
    def rows(params, inputs):
        vector, unravel = ravel_pytree(params)
        return whole(divided(jax.jacrev(lambda v: apply(unravel(v), inputs)[:, 0])(vector)))

    return jax.jit(rows)
