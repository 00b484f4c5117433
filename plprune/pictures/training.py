# SPDX-License-Identifier: Apache-2.0
"""Training: the condition number and L at the steps that were measured."""

from typing import Any

import numpy as np
from jaxtyping import Array, Int

from plprune.constants import Measurement
from plprune.pictures.look import BLUE, GREY, VERMILION, new_figure, shown, style
from plprune.types import Estimate


def condition_along_training(steps: Int[Array | np.ndarray, " m"], measured: Measurement) -> Any:
    """The condition number and the Lipschitz constant along training, with their errors.

    Args:
      steps: From `plprune.optimizers.measured_steps`, or any.
      measured: A `Measurement` whose estimates are arrays [m].

    Returns:
      A matplotlib Figure of two panels. Where a number is not resolved there is a grey mark at the
      upper edge and no point.

    Raises:
      ValueError: there is no step, or lengths differ.
      MissingExtraError: matplotlib is not installed.
    """
    steps = np.asarray(steps)
    if steps.ndim != 1 or not len(steps):
        raise ValueError(f"steps must be [m] with m at least 1, got {list(steps.shape)}.")
    for name, estimate in zip(Measurement._fields, measured, strict=True):
        if np.shape(estimate.value) != steps.shape:
            shape = list(np.shape(estimate.value))
            raise ValueError(f"{name} must be [{len(steps)}] as steps are, got {shape}.")
    with style():
        figure, axes = new_figure(rows=2, height=3.4)
        _draw(axes[0, 0], steps, measured.condition_number, BLUE)
        _draw(axes[1, 0], steps, measured.lipschitz_constant, VERMILION)
        axes[0, 0].set_ylabel("condition number")
        axes[0, 0].set_title(_found(measured.condition_number))
        axes[1, 0].set_ylabel("Lipschitz constant L")
        axes[1, 0].set_xlabel("step")
    return figure


def _draw(axes, steps, estimate: Estimate, colour):
    value, error, resolved = (np.asarray(a) for a in estimate)
    known = resolved & np.isfinite(value)
    axes.set_xlim(steps.min() - 0.02 * np.ptp(steps), steps.max() + 0.02 * np.ptp(steps) or 1)
    if known.any():
        axes.plot(steps[known], value[known], color=colour, marker="o")
        low = np.maximum(value - error, value / 100)[known]
        axes.fill_between(
            steps[known], low, (value + error)[known], color=colour, alpha=0.2, linewidth=0
        )
        if value[known].max() > 10 * value[known].min():
            axes.set_yscale("log")
    for step in steps[~known]:
        axes.plot(step, 0.97, color=GREY, marker="x", transform=axes.get_xaxis_transform())


def _found(estimate):
    value, _, resolved = (np.asarray(a) for a in estimate)
    known = value[resolved]
    if not len(known):
        return "the condition number is resolved nowhere"
    told = f"L/mu {shown(known[0])} at first, {shown(known[-1])} at last"
    return told if resolved.all() else f"{told}; x: not resolved"
