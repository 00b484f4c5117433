# SPDX-License-Identifier: Apache-2.0
"""Hessian norms at initialisation, and the change of the kernel, against the width."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_star.config import Config
from experiments.pl_star.networks import examples, num_parameters, perceptron, signs
from experiments.pl_star.tracing import descent_trace
from experiments.sharding import divided
from plprune.constants import hessian_norm

METHODS = ("linear_output", "gaussian_output", "nonlinear_output", "standard_parameterization")
TOLERANCE, STEPS = 1e-3, 48  # The value's error is of order TOLERANCE^2.


def width(config: Config, seed: int):
    """|H_F| and its slope for two kinds of output weights, two parameterisations, and tanh on top.

    In the standard parameterisation the weights are smaller instead of the derivatives.
    """
    inputs, _ = examples(config.dataset, config.hessian_examples, seed)
    norms, sizes = {name: [] for name in METHODS}, []
    for size in config.hessian_widths:
        apply, init = perceptron(inputs.shape[1], size)
        norm, gaussian = _norm(apply), init(seed)
        binary, ones, shrunk, factors = _variants(gaussian)
        sizes.append(num_parameters(gaussian))
        norms["linear_output"].append(norm(binary, ones, 0.0, inputs))
        norms["gaussian_output"].append(norm(gaussian, ones, 0.0, inputs))
        norms["nonlinear_output"].append(norm(binary, ones, 1.0, inputs))
        norms["standard_parameterization"].append(norm(shrunk, factors, 0.0, inputs))
    found = {"linear_output/parameters_per_width": np.array(sizes)}
    for name, values in norms.items():
        values = np.array([float(v) for v in values])
        slope = np.polyfit(np.log(config.hessian_widths), np.log(values), 1)[0]
        found |= {f"{name}/hessian_norm_slope": slope, f"{name}/hessian_norms": values}
    return found | _changes(config, seed)


def _changes(config, seed):
    widths = sorted(config.widths)
    changes = np.array([float(descent_trace(config, w, seed)[0].kernel_change) for w in widths])
    slope = np.polyfit(np.log(widths), np.log(changes), 1)[0]
    return {"descent/kernel_change_slope": slope, "descent/kernel_change": changes}


@jax.jit
def _variants(params):
    """With an output of signs; ones; and as the standard parameterisation has them.

    Of the last, the weights and the factors that give back `params`.
    """

    def scale(path, leaf):
        fan_in = leaf.shape[0] if path[-1].key == "kernel" else 1
        return jnp.full_like(leaf, fan_in**0.5)

    factors = jax.tree_util.tree_map_with_path(scale, params)
    ones = jax.tree.map(jnp.ones_like, params)
    return signs(params), ones, jax.tree.map(jnp.divide, params, factors), factors


@functools.cache
def _norm(apply):
    """|H_F| in parameters p of ``apply(factors * p)``; `bent` = 1 puts tanh on top.

    One compiled program serves every method, as compiling takes longer than running.
    """
    options = {"key": jax.random.key(0), "tol": TOLERANCE, "max_steps": STEPS}

    @jax.jit
    def norm(params, factors, bent, inputs):
        def outputs(params, inputs):
            plain = apply(jax.tree.map(jnp.multiply, factors, params), inputs)
            return bent * jnp.tanh(plain) + (1 - bent) * plain

        return hessian_norm(outputs, params, divided(inputs), **options).value

    return norm
