# SPDX-License-Identifier: Apache-2.0
"""The one loop over seeds, and the one shape of what it finds.

A method on a seed gives numbers and arrays by name. Numbers become ``results``, {method: {metric:
[a number or None, one per seed]}}; arrays become ``curves``, {"method/metric": [seed, step]}. A
curve that shares its name with a number is given as ``curves/NAME``, as `as_curves` does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

CURVES = "curves/"
Found = Mapping[str, np.ndarray]  # Metric -> a number, or an array over the steps.
Results = dict[str, dict[str, list[float | None]]]
Curves = dict[str, np.ndarray]


def seeds_of(config: Any) -> range:
    """The seeds of a run."""
    return range(config.seed, config.seed + config.seeds)


def each_seed(
    config: Any,
    progress: Any,
    name: str,
    work: Callable[[int], Mapping],
    *,
    task: Any = None,
) -> list[Found]:
    """What ``work(seed)`` gives on every seed; each is a piece that an interruption leaves.

    Args:
      config: Has `seed`, the first, and `seeds`, how many.
      progress: An `experiments.progress.Progress`.
      name: Of the pieces, such as the method's.
      work: Seed -> numbers and arrays by name.
      task: Moves on by one step a seed.
    """
    found = []
    for seed in seeds_of(config):
        found.append(progress.once(f"{name}, seed {seed}", lambda s=seed: work(s)))
        if task is not None:
            task.advance(1)
    return found


def by_method(seeds: Sequence[Found]) -> dict[str, list[Found]]:
    """What was found under "method/metric", on each seed, as one mapping per method and seed."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for place, seed in enumerate(seeds):
        for key, value in seed.items():
            method, _, metric = key.rpartition("/")
            found.setdefault(method, [{} for _ in seeds])[place][metric] = value
    return found


def as_curves(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Curves beside numbers of the same names."""
    return {f"{CURVES}{name}": array for name, array in arrays.items()}


def collected(per_seed: Mapping[str, Sequence[Found]]) -> tuple[Results, Curves]:
    """Results and curves of {method: [what was found on each seed]}.

    A curve that is shorter than another seed's stays where it ends.
    """
    results: Results = {}
    curves: Curves = {}
    for method, runs in per_seed.items():
        results[method] = {}
        for name, first in runs[0].items():
            values = [np.asarray(found[name]) for found in runs]
            if np.ndim(first) == 0:
                results[method][name] = [float(v) if np.isfinite(v) else None for v in values]
            else:
                curves[f"{method}/{name.removeprefix(CURVES)}"] = np.stack(_level(values))
    return {method: entries for method, entries in results.items() if entries}, curves


def notes_on(datasets: Iterable[str]) -> dict[str, str]:
    """Title -> note, of the data sets whose copy here is not stored losslessly."""
    from plprune.data import load

    found = {}
    for name in sorted(datasets):
        try:
            data = load(name, split="train[:1]")
        except FileNotFoundError:
            continue  # The figure that needs it will say so.
        if data.notes:
            found[data.title] = data.notes
    return found


def _level(curves):
    """Curves of one length."""
    if len({len(curve) for curve in curves}) == 1:
        return curves
    length = max(map(len, curves))
    return [np.pad(curve, (0, length - len(curve)), mode="edge") for curve in curves]
