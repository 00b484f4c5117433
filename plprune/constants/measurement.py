# SPDX-License-Identifier: Apache-2.0
"""Every number of the condition at a point, from one kernel, as a table."""

from decimal import ROUND_CEILING, Context
from math import isfinite
from typing import Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from plprune.compilation import are_concrete, compile_once
from plprune.constants.condition import check_objective, ratio
from plprune.constants.ends import kernel_ends
from plprune.constants.lipschitz import lipschitz_constant
from plprune.constants.pl import per_example
from plprune.independence import batch_size
from plprune.types import Apply, Estimate, Inputs, Objective, Params

_UPWARDS = Context(prec=1, rounding=ROUND_CEILING)  # A bound of one digit is a bound still.


class Measurement(NamedTuple):
    """How well conditioned a model is at a point; prints as a table."""

    pl_constant: Estimate  # mu = lambda_min(K)/b.
    lipschitz_constant: Estimate  # L of the objective's gradient; without one lambda_max(K)/b.
    condition_number: Estimate  # L/mu.
    lowest: Estimate  # lambda_min(K), without normalisation.
    highest: Estimate  # lambda_max(K).

    def __repr__(self) -> str:
        """One line per number: what it is, its value and error, or what bounds it."""
        if not are_concrete(tuple(self)):
            return f"Measurement{tuple(self)}"
        names = ("PL constant mu", "Lipschitz constant L", "condition number L/mu")
        rows = zip((*names, "lambda_min(K)", "lambda_max(K)"), self, strict=True)
        return "\n".join(f"{name:<22}{_shown(estimate)}" for name, estimate in rows)


def measure(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    *,
    objective: Objective | None = None,
    batch: Any = None,
    key: PRNGKeyArray | None = None,
    tol: float = 1e-6,
    independent: bool = False,
) -> Measurement:
    """mu, L, L/mu and both ends of the tangent kernel's spectrum, each with its error.

    One kernel serves them all. With an `objective`, L is `lipschitz_constant` of
    ``objective(params, batch)``, which should be a mean over examples as mu is that of the mean
    loss. Without one it is lambda_max(K)/b: the largest eigenvalue of the Gauss-Newton matrix of
    ``1/(2b) sum |f - y|^2``, which is its Hessian where the residuals vanish; the condition number
    is then lambda_max/lambda_min.

    Args:
      apply: ``(params, inputs) -> outputs`` [b, ...], flattened to [b, c].
      params: Tree of arrays.
      inputs: Tree of arrays [b, ...].
      objective: ``(params, batch) -> scalar``.
      batch: Passed to `objective`.
      key: For `objective`: draws the first Krylov direction.
      tol: Relative residual at which iterations stop.
      independent: As for `tangent_kernel`.

    Returns:
      A `Measurement` of `Estimate`s, resolved or not as those of `pl_constant`,
      `lipschitz_constant` and `condition_number`.

    Raises:
      ValueError: an `objective` without `key` or without `batch`, or as `pl_constant`.

    Cost: that of `pl_constant`, and of `lipschitz_constant` where there is an objective. A plain
    call compiles once per model and shape.
    """
    check_objective(objective, batch, key)
    options = {"method": "auto", "key": key, "tol": tol, "independent": independent}
    ends = kernel_ends(apply, params, inputs, **options)
    smoothness = None
    if objective is not None:
        smoothness = lipschitz_constant(objective, params, batch, key=key, tol=tol)
    return _measured(ends.lowest, ends.highest, smoothness, max(batch_size(inputs), 1))


@compile_once("lowest", "highest", "smoothness")
def _measured(lowest, highest, smoothness, size) -> Measurement:
    mu = per_example(lowest, size)
    if smoothness is None:
        return Measurement(mu, per_example(highest, size), ratio(highest, lowest), lowest, highest)
    return Measurement(mu, smoothness, ratio(smoothness, mu), lowest, highest)


def _shown(estimate):
    value, error, resolved = (x.item() for x in jax.device_get(tuple(estimate)))
    bound = float(_UPWARDS.create_decimal_from_float(error))
    if resolved:
        return f"{value:.6g} ± {bound:.1g}"
    return f"not resolved, at most {bound:.1g}" if isfinite(bound) else "not resolved"
