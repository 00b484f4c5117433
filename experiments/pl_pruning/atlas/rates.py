# SPDX-License-Identifier: Apache-2.0
"""The best rate of a grid that widens until its best is interior."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_GAPS = (8, 4, 2, 1)  # The grid grows finer around its best.
_FIRST = (-16, -8, 0, 8, 16)
_FURTHEST = 120
_MARGIN = 3  # To the lowest rate above the best at which a run diverges.


class Best(NamedTuple):
    """The rate that was chosen, as a power of `config.RATIO`."""

    power: int
    merit: float  # Of the best rate, though one below it may have been taken.
    interior: bool  # Both neighbours of the best were tried, and it is finite.


def best_power(merits: Callable[[Sequence[int], float], dict[int, float]]) -> Best:
    """The best of a coarse grid, further ones while it is at an end, and ever finer ones around it.

    Where a run diverges at a rate just above the best one, the rate is taken that keeps a distance
    of `_MARGIN` from there: at the edge of stability other seeds, or another rounding, diverge.

    Args:
      merits: (powers, best so far) -> a number for each, smaller = better. One that is no better
        than the best may be any number that is no better.
    """
    tried = merits(_FIRST, np.inf)
    while True:
        best = min(tried, key=lambda power: tried[power])
        if abs(best) > _FURTHEST:
            return Best(best, tried[best], False)
        pairs = ([best - gap, best + gap] for gap in _GAPS if best % gap == 0)
        wanted = next((new for pair in pairs if (new := _untried(pair, tried))), [])
        if not wanted:
            edge = min((p for p in tried if p > best and np.isinf(tried[p])), default=np.inf)
            power = int(min(best, edge - _MARGIN))
            return Best(power, tried[best], bool(np.isfinite(tried[best])))
        tried |= merits(wanted, tried[best])


def _untried(powers, tried):
    return [power for power in powers if power not in tried]


class Race:
    """How far runs have come, and which of their rates can no longer be the best.

    The merit of a rate is its runs' mean number of steps to the target; one that does not reach it
    within `most` steps is worse than any that does, and one that diverges is worse than all.
    """

    def __init__(self, powers: Sequence[int], runs: int, most: int, best: float):
        self.powers, self.most, self.best = list(powers), most, best
        self.reached = np.full((len(self.powers), runs), np.nan)
        self.last = np.zeros((len(self.powers), runs))  # Losses; finite before the first.
        self.done = 0

    def add(self, losses: np.ndarray, target: float, done: int) -> None:
        """Losses [rates x runs, entries] from the step that was last `done` on."""
        shaped = losses.reshape(*self.reached.shape, -1)
        below = shaped <= target
        first = self.done + np.argmax(below, axis=-1)
        new = below.any(-1) & np.isnan(self.reached)
        self.reached = np.where(new, first, self.reached)
        self.last, self.done = shaped[..., -1], done

    def merits(self) -> np.ndarray:
        """By now: at least so much for rates that are still running."""
        steps = np.where(np.isnan(self.reached), self.done, self.reached).mean(1)
        arrived = ~np.isnan(self.reached)
        late = self.done >= self.most
        missed = 2.0 * self.most + np.where(arrived, 0.0, self.last).mean(1)
        found = np.where(arrived.all(1) | (not late), steps, missed)
        return np.where((np.isfinite(self.last) | arrived).all(1), found, np.inf)

    @property
    def has_ended(self) -> bool:
        """Whether every run is at the target, has diverged or has taken all its steps."""
        return self.done >= self.most or bool(
            np.all(~np.isnan(self.reached) | ~np.isfinite(self.last))
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing that still runs can be the best."""
        merits, arrived = self.merits(), ~np.isnan(self.reached).any(1)
        best = min([self.best, *merits[arrived]])
        lost = np.isinf(merits) | (merits > best)  # A tie may still be won.
        return self.done >= self.most or bool(np.all(arrived | lost))
