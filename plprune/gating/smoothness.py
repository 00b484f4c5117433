# SPDX-License-Identifier: Apache-2.0
"""L/mu as an objective: the Hessian's largest eigenvalue over the kernel's lowest."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plprune.gating.objectives import (
    SOLVER,
    Objective,
    check_labelled,
    check_lowest,
    floor_of,
    lowest_of,
    probe_kernel,
    safe_log,
)
from plprune.gating.options import check_counts
from plprune.losses import risk
from plprune.operators import flat, hessian_product
from plprune.spectra import extreme_eigenvalues, ritz_ends


def log_smoothness_ratio(num_smallest: int | None = None, *, num_products: int = 12) -> Objective:
    """Log L - log mu, with L the largest |eigenvalue| of the Hessian of the probe's mean loss.

    mu is the mean of the `num_smallest` lowest eigenvalues of K / b, K as in
    `log_condition_number`. L comes from `num_products` Hessian products by Lanczos, and its
    derivative is ``v' dH v`` with the eigenvector v held fixed.

    Raises:
      ValueError: a count below 1; when called, a probe without labels or loss.
    """
    check_lowest(num_smallest)
    check_counts(num_products=(num_products, 1))

    def objective(setting, soft, hard):
        del hard
        check_labelled("log_smoothness_ratio", setting)
        kernel = probe_kernel(setting, soft)
        smallest, largest = extreme_eigenvalues(kernel, lowest_of(num_smallest, kernel), SOLVER)
        size = len(jax.tree.leaves(setting.inputs)[0])
        low, floor = jnp.mean(smallest) / size, floor_of(largest, size) / size
        return safe_log(_smoothness(setting, soft, num_products)) - safe_log(low, floor)

    return objective


def _smoothness(setting, gates, num_products):
    """|Hessian|_2 of the mean loss in the ungated parameters, differentiable in the gates."""
    batch = (setting.inputs, setting.labels)
    like, unravel = ravel_pytree(setting.params)

    def product(gates):
        def mean_loss(params, batch):
            return risk(setting.loss, setting.model(params, batch[0], gates), batch[1])

        return hessian_product(mean_loss, setting.params, batch)

    fixed = jax.lax.stop_gradient(gates)
    matvec = flat(product(fixed), setting.params)
    steps = min(num_products, like.size)
    ends = ritz_ends(matvec, like, key=setting.key, max_steps=steps, which="magnitude")
    top = jnp.argmax(jnp.abs(ends.values))
    vector = jax.lax.stop_gradient(ends.vectors[top])
    curvature = jnp.vdot(vector, ravel_pytree(product(gates)(unravel(vector)))[0])
    return jnp.sign(jax.lax.stop_gradient(curvature)) * curvature
