# SPDX-License-Identifier: Apache-2.0
"""What gates minimise: functions of the gated model on a probe, differentiable in the gates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from plprune.kernels import projected_kernel, tangent_kernel
from plprune.losses import risk
from plprune.nodes.gated_apply import GatedApply
from plprune.operators import flat_outputs
from plprune.spectra import extreme_eigenpairs, extreme_eigenvalues
from plprune.types import Gates, Inputs, Params

# Slopes to a tenth are enough: another probe changes them by half (docs/mathematics/spectra.md).
# Exact up to 512 rows and where a tenth of all eigenvalues is asked for.
SOLVER = "krylov"
LOWEST = 5  # Eigenvalues that stand for the lower end where nothing else is asked for.


class Setting(NamedTuple):
    """What an objective looks at besides the gates."""

    model: GatedApply  # (params, inputs, gates) -> outputs.
    params: Params  # With the saved values at closed nodes.
    inputs: Inputs
    labels: Any  # None where the probe has none.
    loss: Callable | None  # Per example, as in `plprune.losses`.
    key: PRNGKeyArray
    independent: bool = False  # Examples are known to be independent: kernels need not check.


# (setting, soft gates, hard gates) -> scalar. Soft gates have mean 1 in each group; hard gates are
# 0 or 1 and pass their gradient straight through to the soft ones.
Objective = Callable[[Setting, Gates, Gates], Float[Array, ""]]


def log_condition_number(
    num_smallest: int | None = None, *, num_combinations: int | None = 1, num_blocks: int = 1
) -> Objective:
    """Log lambda_max(K) - log(mean of the `num_smallest` lowest eigenvalues of K).

    K [b q, b q] is the tangent kernel of q random +-1 combinations of the outputs, shared by the
    batch: a plain sum of logits would be blind to cross-entropy, whose gradient sums to zero over
    classes. K is that of the gated model in its ungated parameters. By Hellmann-Feynman
    ``d lambda = u' dK u`` with the eigenvector u held fixed, so the gradient in all gates costs K,
    its extreme eigenpairs and one reverse pass through K; derived in
    docs/mathematics/pl_pruning.md.

    Args:
      num_smallest: How many of the lowest eigenvalues are averaged, at least 1: the mean is smooth
        where eigenvalues cross, and less noisy than the lowest alone. None takes 5, or all of a
        smaller kernel.
      num_combinations: q, at least 1. None takes the outputs themselves, q = c: the condition
        number that the whole model then trains with, at the cost of a K of c^2 times the size;
        with fewer examples for it (and a tenth of its b c eigenvalues in the mean) gates come
        out better than with one combination.
      num_blocks: Blocks of layers, at least 1: memory beside K is that of one of them, for a model
        whose layers' parts of K do not fit at once. Each costs passes of its own.

    Returns:
      An objective. An eigenvalue below what the dtype resolves counts as that floor, with the
      derivative that it has.

    Raises:
      ValueError: a number below 1, and when called with b q < `num_smallest`.
    """
    check_lowest(num_smallest)
    if num_combinations is not None and num_combinations < 1:
        raise ValueError(f"num_combinations must be at least 1 or None, got {num_combinations}.")
    if num_blocks < 1:
        raise ValueError(f"num_blocks must be at least 1, got {num_blocks}.")

    def objective(setting, soft, hard):
        del hard
        kernel = probe_kernel(setting, soft, num_combinations, num_blocks)
        lowest = lowest_of(num_smallest, kernel)
        smallest, largest = extreme_eigenvalues(kernel, lowest, SOLVER)
        low = jnp.mean(smallest)
        return safe_log(largest) - safe_log(low, floor_of(largest, len(kernel)))

    return objective


def log_trace_ratio(num_smallest: int | None = None) -> Objective:
    """Log trace(K) - log(mean of the `num_smallest` lowest eigenvalues of K).

    The trace bounds lambda_max and is what [Chen 2023] is reported to estimate of the Hessian: of
    the square loss's at interpolation it is trace(K) over the number of examples. Here it is exact,
    since the lowest eigenvalues need K anyway; see `log_condition_number` for K and the cost.

    Args:
      num_smallest: As of `log_condition_number`.

    Raises:
      ValueError: a number below 1, and when called with a smaller kernel.
    """
    check_lowest(num_smallest)

    def objective(setting, soft, hard):
        del hard
        kernel = probe_kernel(setting, soft)
        smallest, largest = extreme_eigenvalues(kernel, lowest_of(num_smallest, kernel), SOLVER)
        low = safe_log(jnp.mean(smallest), floor_of(largest, len(kernel)))
        return safe_log(jnp.trace(kernel)) - low

    return objective


def log_median_ratio() -> Objective:
    """Log lambda_max - log of the median eigenvalue: lambda_min replaced by the bulk. An ablation.

    Costs a full eigen-decomposition of K.
    """
    return _log_ratio(lambda size: size // 2 + 1)


def log_rank_ratio(rank: int) -> Objective:
    """Log lambda_max - log lambda_k of K, the `rank`-th largest: an effective condition number.

    For kernels whose smallest eigenvalues lie below what the dtype resolves, as of smooth targets
    in few dimensions or of the residual of a differential equation: there log kappa is the floor's,
    and training only ever sees the largest eigenvalues, whose modes a loss within the target's
    tolerance needs. Such a model satisfies the PL* condition with lambda_k on the span of those
    [Liu 2022]. Costs a full eigen-decomposition of K.

    Args:
      rank: k, at least 2; how many modes shall be learned.

    Raises:
      ValueError: a rank below 2, and when called with a kernel of fewer rows.
    """
    if rank < 2:
        raise ValueError(f"rank must be at least 2, got {rank}.")

    def checked(size):
        if rank > size:
            raise ValueError(f"rank must be at most the kernel's {size} rows, got {rank}.")
        return rank

    return _log_ratio(checked)


def _log_ratio(rank_of) -> Objective:
    """The log of the largest eigenvalue over the one of a rank, which depends on K's size."""

    def objective(setting, soft, hard):
        del hard
        kernel = probe_kernel(setting, soft)
        size = len(kernel)
        values, largest = extreme_eigenvalues(kernel, size - rank_of(size) + 1)
        return safe_log(largest) - safe_log(values[-1], floor_of(largest, size))

    return objective


def log_largest_eigenvalue() -> Objective:
    """Log lambda_max(K) alone, the numerator of the condition number. An ablation."""

    def objective(setting, soft, hard):
        del hard
        return safe_log(extreme_eigenvalues(probe_kernel(setting, soft), 1, SOLVER)[1])

    return objective


def log_trace() -> Objective:
    """Log trace(K) alone, the bound of lambda_max that needs no eigen-solve. An ablation."""

    def objective(setting, soft, hard):
        del hard
        return safe_log(jnp.trace(probe_kernel(setting, soft)))

    return objective


def with_risk(objective: Objective, *, weight: float) -> Objective:
    """`objective` plus `weight` times the probe's mean loss with closed nodes closed.

    The loss sees hard gates on the saved values, and its gradient passes straight through to the
    soft gates: nodes that the function needs stay open. This is regularised risk minimisation as in
    the abstract of [Chen 2023], with roles exchanged: the weight is on the risk.

    Raises:
      ValueError: a negative weight; when called, a probe without labels or loss.
    """
    if weight < 0:
        raise ValueError(f"weight must be at least 0, got {weight}.")

    def joint(setting, soft, hard):
        check_labelled("with_risk", setting)
        outputs = setting.model(setting.params, setting.inputs, hard)
        return objective(setting, soft, hard) + weight * risk(setting.loss, outputs, setting.labels)

    return joint


def probe_kernel(
    setting: Setting, gates: Gates, num_combinations: int | None = 1, num_blocks: int = 1
) -> Float[Array, "m m2"]:
    """The gated model's tangent kernel of all outputs (None) or of random +-1 combinations."""

    def model(params, inputs):
        return setting.model(params, inputs, gates)

    options = {"blocks": num_blocks, "independent": setting.independent}
    if num_combinations is None:
        kernel = tangent_kernel(model, setting.params, setting.inputs, **options)
    else:
        outputs = jax.eval_shape(flat_outputs(model), setting.params, setting.inputs)
        shape = outputs.shape[1], num_combinations
        signs = jax.random.rademacher(setting.key, shape, outputs.dtype)
        kernel = projected_kernel(model, setting.params, setting.inputs, signs, **options)
    return kernel.reshape((kernel.shape[0] * kernel.shape[1],) * 2)


def kernel_weights(kernel: Float[Array, "b b2"], num_smallest: int) -> Float[Array, "2 b b2"]:
    """The derivatives in K of log lambda_max and of the log mean of the lowest eigenvalues."""
    pairs = extreme_eigenpairs(kernel, num_smallest=num_smallest, method=SOLVER)
    low = jnp.maximum(jnp.mean(pairs.smallest), floor_of(pairs.largest, len(kernel)))
    high = jnp.maximum(pairs.largest, jnp.finfo(kernel.dtype).tiny)
    top, rest = pairs.largest_vector, pairs.smallest_vectors
    projection = jnp.matmul(rest, rest.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.stack([jnp.outer(top, top) / high, projection / (num_smallest * low)])


def floor_of(largest: Float[Array, ""], size: int) -> Float[Array, ""]:
    """What the dtype resolves of a matrix [size, size] with that largest eigenvalue."""
    return max(10.0, size**0.5) * jnp.finfo(largest.dtype).eps * largest


def check_lowest(num_smallest: int | None) -> None:
    """ValueError for a number of eigenvalues below 1."""
    if num_smallest is not None and num_smallest < 1:
        raise ValueError(f"num_smallest must be at least 1, got {num_smallest}.")


def lowest_of(num_smallest: int | None, kernel: Float[Array, "m m"]) -> int:
    """How many of a kernel's eigenvalues are averaged: what was asked for, else the default."""
    return min(LOWEST, len(kernel)) if num_smallest is None else num_smallest


def check_labelled(name: str, setting: Setting) -> None:
    """ValueError unless the probe has labels and there is a loss."""
    if setting.loss is None or setting.labels is None:
        raise ValueError(f"{name} needs a loss and a probe of (inputs, labels).")


def safe_log(value: Float[Array, ""], floor: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
    """Log max(value, floor) with the derivative of value / max(value, floor)."""
    tiny = jnp.finfo(value.dtype).tiny
    safe = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(value, floor), tiny))
    return jnp.log(safe) + (value - jax.lax.stop_gradient(value)) / safe
