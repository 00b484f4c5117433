# SPDX-License-Identifier: Apache-2.0
"""What is told of one recorded run: the smallest pair, the angle, the PL constant, curves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.alpha_beta.config import POWERS, Config
from plprune.conditions import (
    Points,
    Records,
    Replay,
    aiming_cosine,
    alpha_beta_frontier,
    noise_factor,
    pl_ratio,
    recorded,
    smallest_pair,
    worst_margins,
)

SHOWN = 200  # Points of a curve, at most.
EARLY, QUARTER = 0.05, 0.25  # The shares of the steps that count as early.
NUMBERS = (
    "smallest_alpha", "smallest_beta", "beta_at_2", "noise_factor", "min_angle", "early_angle",
    "negative_share", "pl_constant", "final_loss",
)  # fmt: skip


class Seen(NamedTuple):
    """What is told of the steps of a run; each array is [steps]."""

    points: Points
    cosine: Array
    ratios: dict[float, Array]  # Of the relaxed PL condition, by power.
    numbers: dict[str, Array]  # Over all steps.


def measured(config: Config, found: Replay, reference_values) -> dict[str, np.ndarray]:
    """Numbers and curves of one run; NaN where it diverged.

    Args:
      config: For the heat map.
      found: The run, made twice.
      reference_values: The loss at the last iterate of every step's minibatch, of the very function
        that the step descended [steps].

    Raises:
      RuntimeError: The second run was not the first in every bit, so that nothing was measured.
      ValueError: The model's losses are not functions of its parameters alone.
    """
    records = found.records
    if not found.exact:
        raise RuntimeError(
            f"the run did not repeat itself: its losses differ from step {found.first_difference}."
        )
    if np.isfinite(records.value).all() and np.isnan(reference_values).all():
        raise ValueError("the model must not use its state in training mode, but its losses do.")
    seen = _seen(records, reference_values)
    if not all(np.isfinite(line).all() for line in seen.points):
        return dict.fromkeys(NUMBERS, np.nan) | _curves(records, seen) | _heat(config, None)
    frontier = alpha_beta_frontier(*seen.points)
    pair = smallest_pair(frontier)
    return {
        "smallest_alpha": pair.alpha,
        "smallest_beta": pair.beta,
        "beta_at_2": frontier.beta(2.0),
        "noise_factor": noise_factor(frontier),
        **seen.numbers,
        **_curves(records, seen),
        **_heat(config, seen.points),
    }


@jax.jit
def _seen(records: Records, reference_values) -> Seen:
    """One program: step by step, its parts would be a hundred small ones to compile."""
    points = recorded(records, jnp.asarray(reference_values))
    cosine = aiming_cosine(records.inner, records.gradient_norm, records.distance)
    norm = records.gradient_norm
    numbers = {
        "min_angle": jnp.min(cosine),
        "early_angle": jnp.mean(cosine[: _part(cosine, EARLY)]),
        "negative_share": jnp.mean(cosine[: _part(cosine, QUARTER)] < 0),
        "pl_constant": jnp.min(pl_ratio(norm, points.excess)),
        "final_loss": jnp.mean(reference_values),
    }
    ratios = {power: pl_ratio(norm, records.value, power=power) for power in POWERS}
    return Seen(points, cosine, ratios, numbers)


def _part(line, share):
    return max(1, round(share * len(line)))


def relaxed_pl(ratio) -> np.ndarray:
    """2 log |grad f| - (2 / power) log (f - f*), of `pl_ratio`: bounded below where it holds.

    -inf where the gradient vanishes above the minimum, inf at the minimum.
    """
    with np.errstate(divide="ignore"):
        return np.log(2 * np.asarray(ratio))


def _curves(records, seen):
    """Averages over stretches of steps, and the smallest relaxed PL ratios in each."""
    relaxed = {
        f"pl_{power:g}_curve": _stretches(relaxed_pl(ratio), np.min)
        for power, ratio in seen.ratios.items()
    }
    return {
        "loss_curve": _stretches(records.value, np.mean),
        "gradient_curve": _stretches(records.gradient_norm, np.mean),
        "angle_curve": _stretches(seen.cosine, np.mean),
        **relaxed,
        "steps": _stretches(np.arange(len(records.value)), np.mean),
    }


def _stretches(line, reduce):
    line = np.asarray(line, float)
    size = -(-len(line) // SHOWN)
    whole = len(line) // size * size  # At most one stretch is dropped, the incomplete last one.
    return reduce(line[:whole].reshape(-1, size), axis=1)


def _heat(config, points):
    """The smallest margin of each pair of a grid that all runs share."""
    alphas = np.linspace(0, config.heat_top, config.heat)
    grid = np.meshgrid(alphas, alphas, indexing="ij")
    heat = np.full(grid[0].size, np.nan) if points is None else worst_margins(*grid, *points)
    return {"heat": heat.ravel(), "heat_axis": alphas}
