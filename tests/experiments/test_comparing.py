# SPDX-License-Identifier: Apache-2.0
"""What two records are said to differ in, against differences worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments import __main__
from experiments.comparing import compare
from plprune.records import summarise
from tests.experiments.toy_records import write_toy

SEEDS = np.random.default_rng(0).normal(size=5).tolist()


@pytest.fixture
def pair(tmp_path):
    def made(first, second, seeds=(0, 1, 2, 3, 4), others=None):
        for name, values, own in (("a", first, seeds), ("b", second, others or seeds)):
            results = summarise({"gd/kappa": values})
            write_toy(tmp_path / name, results=results, seeds=list(own))
        return tmp_path / "a", tmp_path / "b"

    return made


def test_the_same_seeds_are_compared_one_by_one(pair):
    shifts = np.array([1.0, 1.1, 0.9, 1.2, 0.8])
    (found,) = compare(*pair({"x": SEEDS}, {"x": (np.array(SEEDS) + shifts).tolist()})).shared
    assert found.errors == pytest.approx(1.0 / stats.sem(shifts))
    assert found.by_chance == pytest.approx(2 * stats.t.sf(2, 4))
    assert found.is_clear


def test_other_seeds_are_compared_by_both_errors(pair):
    shifted = [value + 1 for value in SEEDS]
    folders = pair({"x": SEEDS}, {"x": shifted}, others=(5, 6, 7, 8, 9))
    (found,) = compare(*folders).shared
    assert found.errors == pytest.approx(1 / math.hypot(*2 * [stats.sem(SEEDS)]))


def test_a_record_differs_in_nothing_from_itself(pair):
    found = compare(*pair({"x": SEEDS, "y": [None] * 5}, {"x": SEEDS, "y": [None] * 5}))
    assert found.lines() == ["0 of 1 results differ by more than two standard errors."]


def test_what_cannot_be_told_is_said(pair):
    found = compare(*pair({"x": SEEDS, "y": SEEDS}, {"x": [*SEEDS[1:], None], "z": SEEDS}))
    assert found.lines()[1:] == [
        "Too few seeds, or not resolved in one: gd/kappa/x.",
        "Only in the first: gd/kappa/y.",
        "Only in the second: gd/kappa/z.",
    ]
    (one,) = compare(*pair({"x": [1.0]}, {"x": [2.0]}, seeds=(0,))).shared
    assert one.is_open
    assert not one.is_clear


def test_seconds_are_the_machines_and_records_must_have_something_in_common(pair):
    seconds = {"x": SEEDS, "train_seconds": SEEDS}
    slower = {"x": SEEDS, "train_seconds": [9 * value for value in SEEDS]}
    assert [d.name for d in compare(*pair(seconds, slower)).shared] == ["gd/kappa/x"]
    with pytest.raises(ValueError, match="no result in common"):
        compare(*pair({"x": SEEDS}, {"y": SEEDS}))


def test_the_command_shows_what_is_clear_first(pair, capsys):
    more = [value + 5 for value in SEEDS]  # One constant shift: no error at all.
    folders = pair({"x": SEEDS, "y": SEEDS}, {"x": SEEDS, "y": more})
    assert __main__.main(["compare", *map(str, folders)]) == 0
    told = capsys.readouterr().out
    assert "gd/kappa/y" in told
    assert "1 of 2 results" in told
    assert "gd/kappa/x" not in told
    assert __main__.main(["compare", str(folders[0])]) == 2
