# SPDX-License-Identifier: Apache-2.0
"""The pairs of the alpha-beta-condition that held along a run."""

from typing import Any

import numpy as np

from plprune.conditions import Frontier, smallest_pair
from plprune.pictures.look import BLUE, VERMILION, new_figure, shown, style


def condition_frontier(frontier: Frontier, *, largest: float | None = None) -> Any:
    """The frontier of the alpha-beta-condition: pairs on and above the line hold.

    Args:
      frontier: From `plprune.alpha_beta_frontier`.
      largest: Where the axis of alpha ends; by default at twice the smallest pair's.

    Returns:
      A matplotlib Figure with the smallest pair marked [Islamov 2024].

    Raises:
      ValueError: an empty frontier, which has nothing to show, or a `largest` that is not above
        the smallest feasible alpha.
      MissingExtraError: matplotlib is not installed.
    """
    if not len(frontier.alphas):
        raise ValueError("frontier must hold a feasible pair, got an empty one.")
    pair = smallest_pair(frontier)
    is_known = np.isfinite(pair.alpha)
    end = largest or min(2 * (pair.alpha if is_known else frontier.alphas[-1] + 1), frontier.high)
    if not end > frontier.low:
        raise ValueError(f"largest must be above {frontier.low}, got {end}.")
    inside = frontier.alphas[frontier.alphas < end]
    alphas = np.append(inside, end)
    betas = frontier.beta(alphas)
    with style():
        figure, ((axes,),) = new_figure()
        axes.plot(alphas, betas, color=BLUE)
        top = max(betas.max() * 1.15, end / 2)
        axes.fill_between(alphas, betas, top, color=BLUE, alpha=0.15, linewidth=0)
        if is_known:
            axes.plot(*pair, color=VERMILION, marker="o", linestyle="")
        axes.set_ylim(0, top)
        axes.set_xlim(frontier.low, end)
        axes.set_xlabel("alpha")
        axes.set_ylabel("beta")
        axes.set_title(
            f"smallest pair: alpha {shown(pair.alpha)}, beta {shown(pair.beta)}"
            if is_known
            else "no pair with alpha above beta holds"
        )
    return figure
