# SPDX-License-Identifier: Apache-2.0
"""One part of the map: every cell's methods, each at its best rate, on seeds of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.pl_pruning.atlas.cells import Cell, cells_of
from experiments.pl_pruning.atlas.config import RATIO, Config
from experiments.pl_pruning.atlas.lanes import accuracies, forward, lanes_of, step_seconds
from experiments.pl_pruning.atlas.rates import Best, Race, best_power
from experiments.pl_pruning.atlas.starts import Start, setting_of, start_of
from experiments.pl_pruning.gating import check_functions
from experiments.pl_pruning.measures import hessian_norm, size_of
from experiments.pl_pruning.settings import Regime
from experiments.progress import Progress
from experiments.results import Curves, Results, notes_on, seeds_of

_CENTRES = {"gd": 1.0, "sgd": 0.1, "momentum": 0.03, "adam": 0.004, "adamw": 0.004, "lbfgs": 0.5}
_BACKWARD = 3  # A step costs so many forward passes.

Numbers = dict[str, Any]


def run(config: Config, figure: str, *, progress: Progress) -> tuple[Results, Curves]:
    """Numbers per cell and method of a part; each method of a cell is a piece."""
    check_functions(config.methods)
    cells, results = cells_of(figure, config), {}
    methods = ["dense", *(name for name in config.methods if name != "dense")]
    progress.plan(len(cells) * len(methods))
    for cell in cells:
        dense: Numbers = {}
        with progress.task(cell.name, total=len(methods)) as task:
            for method in methods:
                name = f"{cell.name}/{method}"
                found = progress.once(
                    name, lambda c=cell, m=method, d=dense: _numbers(config, c, m, d)
                )
                dense = dense or found
                results[name] = _as_lists(found, config.seeds)
                task.advance(1)
    return results, {}


def versions(config: Config, figure: str | None = None) -> dict[str, str]:
    """Notes on images that are not stored losslessly."""
    used = {"fashion_mnist"} if config.fashion_examples and figure in (None, "fashion") else set()
    return notes_on(used)


def _numbers(config: Config, cell: Cell, method: str, dense: Numbers) -> Numbers:
    """What a method gives on the seeds of the verdict; `dense` is empty for dense itself."""
    regime = setting_of(config, cell)[1]
    searched = range(config.search_seed, config.search_seed + config.search_seeds)
    best = _search(cell, regime, [start_of(config, cell, method, seed) for seed in searched],
                   config.log_every)  # fmt: skip
    starts = [start_of(config, cell, method, seed) for seed in seeds_of(config)]
    cost = _step_flops(regime, starts[0])
    seconds = step_seconds(regime, starts[0], config.log_every)
    every = config.log_every
    equal = dense.get("equal_steps", every * -(-min(best.merit, regime.max_steps) // every))
    # As many FLOPs as a half's `equal` steps: of the smaller network all of them.
    fair = _fair_steps(config, cell, float(cost), int(equal))
    steps, found = _train(cell, regime, starts, best, every, (int(equal), fair))
    gating = np.asarray([one.gating_seconds for one in starts])
    return {
        "steps_to_target": steps, "flops_to_target": steps * cost + starts[0].gating_flops,
        "seconds_to_target": steps * seconds + np.min(gating), "gating_seconds": gating,
        "test_accuracy": found[int(equal)], "accuracy_at_flops": found[fair],
        "rate": _rates(cell, regime, starts[:1], best.power)[0] if cell.optimizer != "gd" else 1.0,
        "interior": float(best.interior), "step_seconds": seconds, "step_flops": cost,
        "equal_steps": float(equal),
    }  # fmt: skip


def _fair_steps(config: Config, cell: Cell, cost: float, equal: int) -> int:
    """Steps for the FLOPs of `equal` steps of kappa's half."""
    half = start_of(config, cell, "kappa", config.search_seed)
    small, every = _step_flops(setting_of(config, cell)[1], half), config.log_every
    return min(equal, every * max(1, round(equal * small / cost / every)))


def _step_flops(regime: Regime, one: Start) -> float:
    size = size_of(one.small.trainer, one.small.first, one.problem.data)
    return _BACKWARD * size["flops"] * regime.batch_size


def _search(cell: Cell, regime: Regime, starts: Sequence[Start], every: int) -> Best:
    trainer = starts[0].small.trainer

    def merits(powers, best):
        rates = [rate for power in powers for rate in _rates(cell, regime, starts, power)]
        lanes = lanes_of(regime, [*starts] * len(powers), rates)
        race, done = Race(powers, len(starts), regime.max_steps, best), 0
        while not race.is_over:
            until = min(done + every, regime.max_steps)
            lanes, losses = forward(regime, trainer, lanes, done, until)
            race.add(losses, cell.target, until)
            done = until
        return dict(zip(powers, map(float, race.merits()), strict=True))

    if cell.optimizer == "gd":  # 1/L is what it is.
        merit = merits((0,), np.inf)[0]
        return Best(0, merit, True)
    return best_power(merits)


def _rates(cell: Cell, regime: Regime, starts: Sequence[Start], power: int) -> list[float]:
    if regime.rate_unit == "1":
        return [_CENTRES[cell.optimizer] * RATIO**power] * len(starts)
    return [1 / hessian_norm(s.small.trainer, s.small.first, s.problem.data) for s in starts]


def _train(
    cell: Cell, regime: Regime, starts: Sequence[Start], best: Best, every: int,
    times: tuple[int, ...],
) -> tuple[np.ndarray, dict[int, np.ndarray]]:  # fmt: skip
    """Steps to the target, NaN where it is not reached, and accuracies at `times`."""
    trainer, found, done = starts[0].small.trainer, {}, 0
    lanes = lanes_of(regime, starts, _rates(cell, regime, starts, best.power))
    race = Race([best.power], len(starts), regime.max_steps, np.inf)
    while done < max(times) or not race.has_ended:
        until = min(done + every, regime.max_steps)
        lanes, losses = forward(regime, trainer, lanes, done, until)
        race.add(losses, cell.target, until)
        done = until
        if done in times:
            found[done] = accuracies(trainer, lanes, starts)
    return race.reached[0], found


def _as_lists(found: Numbers, seeds: int) -> dict[str, list[float | None]]:
    each = {name: np.broadcast_to(value, (seeds,)) for name, value in found.items()}
    return {
        name: [float(value) if np.isfinite(value) else None for value in values]
        for name, values in each.items()
    }
