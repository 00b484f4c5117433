# SPDX-License-Identifier: Apache-2.0
"""The loop over seeds, and the one shape of what it finds."""

from types import SimpleNamespace

import numpy as np

from experiments.progress import Progress
from experiments.results import as_curves, by_method, collected, each_seed, seeds_of
from experiments.resuming import Kept

CONFIG = SimpleNamespace(seed=3, seeds=2)


class Task:
    def __init__(self):
        self.seen = []

    def advance(self, steps=1, **numbers):
        self.seen.append((steps, numbers))


def test_every_seed_is_a_piece_of_its_own_and_a_step_of_the_task(tmp_path):
    task, done = Task(), []

    def work(seed):
        done.append(seed)
        return {"loss": seed / 2, "line": np.arange(seed)}

    for _ in range(2):
        progress = Progress(Kept(tmp_path, "run"))
        found = each_seed(CONFIG, progress, "gd", work, task=task)
        assert [one["loss"] for one in found] == [1.5, 2.0]
    assert done == [3, 4] == list(seeds_of(CONFIG))
    assert task.seen == [(1, {})] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"gd, seed 3.npz", "gd, seed 4.npz"}


def test_numbers_become_results_and_arrays_curves():
    runs = [
        {"loss": 1.0, "count": np.int64(2), "none": np.nan, "line": np.ones(3)},
        {"loss": np.inf, "count": np.int64(3), "none": 1.0, "line": np.zeros(3)},
    ]
    results, curves = collected({"a/b": runs, "curves only": [{"line": np.ones((2, 2))}]})
    assert results == {"a/b": {"loss": [1.0, None], "count": [2.0, 3.0], "none": [None, 1.0]}}
    assert set(curves) == {"a/b/line", "curves only/line"}
    np.testing.assert_array_equal(curves["a/b/line"], [[1, 1, 1], [0, 0, 0]])


def test_a_curve_may_have_the_name_of_a_number():
    found = {"loss": 1.0} | as_curves({"loss": np.arange(2)})
    results, curves = collected({"a": [found]})
    assert results == {"a": {"loss": [1.0]}}
    assert curves["a/loss"].tolist() == [[0, 1]]


def test_a_curve_that_ends_early_stays_where_it_is():
    _, curves = collected({"a": [{"line": np.array([1.0, 2.0])}, {"line": np.array([3.0])}]})
    assert curves["a/line"].tolist() == [[1, 2], [3, 3]]


def test_methods_are_told_apart_by_the_last_part_of_a_name():
    seeds = [{"n/3/x": 1, "n/4/x": 2}, {"n/3/x": 3, "n/4/x": 4}]
    assert by_method(seeds) == {"n/3": [{"x": 1}, {"x": 3}], "n/4": [{"x": 2}, {"x": 4}]}
