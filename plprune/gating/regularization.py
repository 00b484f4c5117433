# SPDX-License-Identifier: Apache-2.0
"""The condition number as a penalty of the weights: PL regularisation without gates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from plprune.gating.objectives import Objective, Setting, log_condition_number
from plprune.gating.options import check_counts
from plprune.types import Apply, Inputs, Params

Risk = Callable[[Params, Any], Float[Array, ""]]  # (params, batch).
Regularized = Callable[..., Float[Array, ""]]


def with_condition(
    loss: Risk,
    weight: float,
    *,
    apply: Apply,
    every: int = 10,
    objective: Objective | None = None,
) -> Regularized:
    """`loss` plus `weight` times log kappa of the model on a probe, in the model's own parameters.

    Training minimises risk + PL regularisation in the abstract of [Chen 2023]. There gates carry
    the second term; here the weights do. By Hellmann-Feynman the slope of log kappa needs two
    eigenvectors of the probe's kernel and one reverse pass through it (derived in
    docs/mathematics/pl_pruning.md, where gates take the place of the weights).

    Args:
      loss: The scalar that is minimised without it: ``(params, batch) -> loss``.
      weight: Of log kappa, at least 0; a step in a thousand of kappa is worth a thousandth of it.
      apply: The model.
      every: Steps between those on which the penalty is added, then `every` times as much: in the
        mean the pull is the same, at a fraction of the cost. Under `jax.vmap` over steps both
        branches are computed.
      objective: What stands for log kappa, such as `log_trace_ratio`; by default
        `log_condition_number` of one random combination of the outputs.

    Returns:
      ``(params, batch, *, probe, step, key) -> scalar``, for `jax.grad`: `probe` [b, ...] are the
      inputs of the kernel, `step` counts from 0, and the key, folded with the step, draws the
      combination. Costs the loss, and on every `every`-th step a kernel of b examples with its
      reverse pass.

    Raises:
      ValueError: a negative weight, `every` below 1, or what `objective` refuses.
    """
    if not weight >= 0:
        raise ValueError(f"weight must be at least 0, got {weight}.")
    check_counts(every=(every, 1))
    log_kappa = log_condition_number() if objective is None else objective

    def total(
        params: Params, batch: Any, *, probe: Inputs, step: Int[Array, ""] | int, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        value = loss(params, batch)
        if not weight:
            return value

        def penalty(params):
            own = jax.random.fold_in(key, step)
            setting = Setting(lambda p, x, _: apply(p, x), params, probe, None, None, own)
            return (every * weight * log_kappa(setting, {}, {})).astype(value.dtype)

        due = jnp.asarray(step) % every == 0
        return value + jax.lax.cond(due, penalty, lambda _: jnp.zeros_like(value), params)

    return total
