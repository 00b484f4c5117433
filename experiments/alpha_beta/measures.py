"""What is told of one recorded run: the smallest pair, the angle, the PL constant, curves."""

import jax.numpy as jnp
import numpy as np

from experiments.alpha_beta.config import Config
from plprune.conditions import (
    Replay,
    aiming_cosine,
    alpha_beta_frontier,
    batch_losses,
    pl_ratio,
    recorded,
    smallest_pair,
    worst_margins,
)

HIGHEST = 2.0  # The largest alpha of a heat map (at least 1), over the smallest that works.
SHOWN = 200  # Points of a curve, at most.


def measured(config: Config, found: Replay, losses_at_end, indices) -> dict[str, np.ndarray]:
    """Numbers and curves of one run.

    Args:
      config: For the size of the heat map.
      found: The run, made twice.
      losses_at_end: Of all examples at the last iterate, [n].
      indices: Examples of each step.

    Raises:
      RuntimeError: The second run was not the first in every bit, so that nothing was measured.
    """
    if not found.exact:
        raise RuntimeError(
            f"the run did not repeat itself: its losses differ from step {found.first_difference}."
        )
    points = recorded(found.records, batch_losses(jnp.asarray(losses_at_end), indices))
    if not all(np.isfinite(line).all() for line in points):
        names = ("smallest_alpha", "smallest_beta", "min_angle", "pl_constant", "final_loss")
        return dict.fromkeys(names, np.nan) | _curves(found.records)
    records = found.records
    pair = smallest_pair(alpha_beta_frontier(*points))
    return {
        "smallest_alpha": pair.alpha,
        "smallest_beta": pair.beta,
        "min_angle": jnp.min(aiming_cosine(points.inner, records.gradient_norm, records.distance)),
        "pl_constant": jnp.min(pl_ratio(records.gradient_norm, points.excess)),
        "final_loss": jnp.mean(losses_at_end),
        **_curves(records),
        **_heat(config, pair, points),
    }


def _curves(records):
    """Averages over stretches of steps, and the smallest angle and PL ratio in each."""
    cosine = aiming_cosine(records.inner, records.gradient_norm, records.distance)
    return {
        "loss_curve": _stretches(records.value, np.mean),
        "gradient_curve": _stretches(records.gradient_norm, np.mean),
        "angle_curve": _stretches(cosine, np.mean),
        "pl_curve": _stretches(pl_ratio(records.gradient_norm, records.value), np.min),
        "steps": _stretches(np.arange(len(records.value)), np.mean),
    }


def _stretches(line, reduce):
    line = np.asarray(line, float)
    size = -(-len(line) // SHOWN)
    whole = len(line) // size * size  # At most one stretch is dropped, the incomplete last one.
    return reduce(line[:whole].reshape(-1, size), axis=1)


def _heat(config, pair, points):
    """The smallest margin of each pair; the grid follows the run's own pair."""
    top = max(1.0, HIGHEST * pair.alpha) if np.isfinite(pair.alpha) else 10.0
    alphas = np.linspace(0, top, config.heat)
    grid = np.meshgrid(alphas, alphas, indexing="ij")
    return {"heat": worst_margins(*grid, *points).ravel(), "heat_axis": alphas}
