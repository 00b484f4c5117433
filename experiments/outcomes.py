# SPDX-License-Identifier: Apache-2.0
"""From what the seeds of an experiment found to what its record holds."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Results = dict[str, dict[str, list[float | None]]]
Curves = dict[str, np.ndarray]


def collected(
    per_seed: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> tuple[Results, Curves]:
    """Numbers become results and arrays become curves; methods map to one dictionary per seed."""
    results: Results = {}
    curves: Curves = {}
    for method, runs in per_seed.items():
        for name, first in runs[0].items():
            values = [np.asarray(found[name]) for found in runs]
            if np.ndim(first) == 0:
                numbers = [float(v) if np.isfinite(v) else None for v in values]
                results.setdefault(method, {})[name] = numbers
            else:
                curves[f"{method}/{name}"] = np.stack(values)
    return results, curves


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
