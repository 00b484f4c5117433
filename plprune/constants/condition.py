# SPDX-License-Identifier: Apache-2.0
"""Condition numbers: of the tangent kernel, and of an objective against it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from plprune.compilation import compile_once
from plprune.constants.ends import kernel_ends
from plprune.constants.lipschitz import lipschitz_constant
from plprune.constants.pl import pl_constant
from plprune.types import Apply, Estimate, Inputs, Objective, Params


def condition_number(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    objective: Objective | None = None,
    batch: Any = None,
    key: PRNGKeyArray | None = None,
    tol: float = 1e-6,
    independent: bool = False,
) -> Estimate:
    """The condition number lambda_max(K)/lambda_min(K); with an `objective`, L/mu.

    L = `lipschitz_constant` of ``objective(params, batch)``, which should be a mean over
    examples, as mu = `pl_constant` is that of the mean loss over `inputs`.

    Returns:
      Unresolved (value and error inf) where lambda_min or L is not resolved.

    Raises:
      ValueError: an `objective` without `key` or without `batch`, or as `pl_constant`, whose check
        of `apply` `independent` skips.
    """
    check_objective(objective, batch, key)
    if objective is None:
        ends = kernel_ends(
            apply, params, inputs, method="auto", key=key, tol=tol, independent=independent
        )
        return ratio(ends.highest, ends.lowest)
    return ratio(
        lipschitz_constant(objective, params, batch, key=key, tol=tol),
        pl_constant(apply, params, inputs, tol=tol, independent=independent),
    )


def check_objective(objective: Objective | None, batch: Any, key: PRNGKeyArray | None) -> None:
    """ValueError for an objective without `key` or without `batch`."""
    if objective is not None and key is None:
        raise ValueError("key must be given with an objective, got None.")
    if objective is not None and batch is None:
        raise ValueError("batch must be given with an objective, got None.")


@compile_once("top", "bottom")
def ratio(top: Estimate, bottom: Estimate) -> Estimate:
    """top/bottom with the worst case of both errors; infinite where either is unresolved."""
    resolved = top.resolved & bottom.resolved & (bottom.value > bottom.error)
    safe = jnp.where(resolved, bottom.value, 1)
    least = jnp.where(resolved, bottom.value - bottom.error, 1)
    value = top.value / safe
    error = (top.error + value * bottom.error) / least  # (top + error)/least - value.
    resolved = resolved & jnp.isfinite(error)
    return Estimate(
        jnp.where(resolved, value, jnp.inf), jnp.where(resolved, error, jnp.inf), resolved
    )
