# SPDX-License-Identifier: Apache-2.0
"""How badly conditioned a random Gaussian system is, beside the bound on its mean."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from plprune.spectra.scaling import power_of_two, widened


def log_condition_bound(num_outputs: int, num_parameters: int) -> float:
    """2 log(m/(m - n + 1)) + 5, above E log kappa(J J') of Gaussian Jacobians J [n, m], n <= m.

    Twice the bound of [Chen & Dongarra 2005] on E log(sigma_max/sigma_min), after [Liu 2022].

    Raises:
      ValueError: `num_outputs` below 1, or fewer parameters than outputs.
    """
    _check(num_outputs, num_parameters)
    if num_parameters < num_outputs:
        raise ValueError(
            f"num_parameters must be at least num_outputs = {num_outputs}, got {num_parameters}."
        )
    return 2 * math.log(num_parameters / (num_parameters - num_outputs + 1)) + 5


def log_conditions(
    num_outputs: int, num_parameters: int, *, key: PRNGKeyArray, num_draws: int
) -> Float[Array, " draws"]:
    """Draws of log kappa of J J' (J' J where m < n) for standard Gaussian J [n, m].

    From singular values of J, which lose half as many digits as the eigenvalues of J J'.

    Raises:
      ValueError: sizes or draws below 1.
    """
    _check(num_outputs, num_parameters)
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}.")

    def draw(key):
        return jacobian_log_condition(jax.random.normal(key, (num_outputs, num_parameters)))

    return jax.lax.map(draw, jax.random.split(key, num_draws))


def jacobian_log_condition(jacobian: Num[Array, "n m"]) -> Float[Array, ""]:
    """2 log(sigma_1/sigma_k) of J [n, m] with k = min(n, m): log kappa of the smaller Gram matrix.

    Infinite where sigma_k is below what the dtype resolves, max(n, m) eps sigma_1, or not finite.

    Raises:
      ValueError: entries that are not real numbers, or none.
    """
    if jacobian.size == 0:
        raise ValueError(f"jacobian must not be empty, got shape {jacobian.shape}.")
    wide = widened("jacobian", jacobian)
    sigmas = jnp.linalg.svd(wide / power_of_two(wide), compute_uv=False)
    coarsest = jacobian.dtype if jnp.issubdtype(jacobian.dtype, jnp.floating) else wide.dtype
    floor = max(jacobian.shape) * float(jnp.finfo(coarsest).eps) * sigmas[0]
    resolved = (sigmas[-1] > floor) & jnp.isfinite(sigmas[0])
    safe = jnp.where(resolved, sigmas[-1], 1)
    return jnp.where(resolved, 2 * jnp.log(jnp.where(resolved, sigmas[0], 1) / safe), jnp.inf)


def _check(num_outputs, num_parameters):
    for name, count in (("num_outputs", num_outputs), ("num_parameters", num_parameters)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
