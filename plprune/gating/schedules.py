# SPDX-License-Identifier: Apache-2.0
"""How the fraction of nodes that stay open falls over time."""

from collections.abc import Callable
from numbers import Real

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]

SCHEDULES = ("one_shot", "linear", "cubic")


def kept_fraction(schedule: str, *, keep_fraction: float, num_steps: int) -> Schedule:
    """The fraction of nodes open after a gate update at some step.

    Args:
      schedule: "one_shot" is `keep_fraction` at once; "linear" falls to it evenly over `num_steps`;
        "cubic" falls fast first, as ``keep + (1 - keep)(1 - t)^3`` at t = step / num_steps
        [Zhu 2017].
      keep_fraction: Final fraction, in (0, 1].
      num_steps: Steps until it is reached; it stays there afterwards.

    Raises:
      ValueError: an unknown schedule, a fraction outside (0, 1], or `num_steps` below 0.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {SCHEDULES}, got {schedule!r}.")
    if not isinstance(keep_fraction, Real | Array | np.ndarray) or not 0 < keep_fraction <= 1:
        raise ValueError(f"keep_fraction must lie in (0, 1], got {keep_fraction}.")
    if num_steps < 0:
        raise ValueError(f"num_steps must be at least 0, got {num_steps}.")
    power = {"one_shot": None, "linear": 1, "cubic": 3}[schedule]
    if power is None or num_steps == 0:
        return lambda step: jnp.full(jnp.shape(step), keep_fraction, jnp.float32)

    def fraction(step):
        left = 1 - jnp.minimum(step / num_steps, 1).astype(jnp.float32)
        return keep_fraction + (1 - keep_fraction) * left**power

    return fraction
