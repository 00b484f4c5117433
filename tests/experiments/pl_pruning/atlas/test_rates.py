# SPDX-License-Identifier: Apache-2.0
"""Grids that widen until their best is interior, and races that end once it is known."""

import numpy as np
import pytest

from experiments.pl_pruning.atlas.rates import Race, best_power


def grid(function):
    asked = []

    def merits(powers, best):
        del best
        asked.extend(powers)
        return {power: function(power) for power in powers}

    return merits, asked


@pytest.mark.parametrize("least", [-53, -16, 0, 3, 42])
def test_the_grid_widens_until_its_best_is_interior(least):
    merits, asked = grid(lambda power: 10.0 + abs(power - least))
    found = best_power(merits)
    assert found == (least, 10.0, True)
    assert {least - 1, least + 1} <= set(asked)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(("edge", "taken"), [(9, 6), (12, 9), (13, 10), (40, 10)])
def test_a_rate_keeps_its_distance_from_the_edge_of_stability(edge, taken):
    merits, _ = grid(lambda power: np.inf if power >= edge else 50.0 + abs(power - 10))
    assert best_power(merits).power == taken


def test_a_best_that_lies_nowhere_is_not_interior():
    merits, asked = grid(float)
    assert not best_power(merits).interior
    assert min(asked) < -120
    merits, asked = grid(lambda _: np.inf)
    assert not best_power(merits).interior


def test_a_race_counts_steps_and_ends_once_nothing_left_can_win():
    race = Race([0, 1, 2], runs=2, most=100, best=np.inf)
    slow = np.full((2, 4), 9.0)
    fast = np.asarray([[9, 9, 0.1, 9], [9, 0.1, 9, 9]])
    race.add(np.concatenate([slow, fast, slow * np.nan]), 0.5, 4)
    np.testing.assert_allclose(race.merits(), [4, 1.5, np.inf])
    assert race.is_over  # The first rate has already taken longer.
    np.testing.assert_array_equal(race.reached[1], [2, 1])


def test_a_race_goes_on_while_a_rate_may_win_or_tie():
    race = Race([0, 1], runs=1, most=20, best=np.inf)
    assert not race.is_over
    race.add(np.asarray([[9, 0.1], [9, 9]]), 0.5, 1)
    assert not race.is_over
    assert Race([0], runs=1, most=0, best=np.inf).is_over


def test_what_misses_the_target_is_worse_than_all_that_reach_it():
    race = Race([0, 1, 2], runs=1, most=4, best=np.inf)
    race.add(np.asarray([[3, 2, 1, 0.1], [3, 2, 1, 0.9], [3, 2, 1, 0.8]]), 0.5, 4)
    np.testing.assert_allclose(race.merits(), [3, 8.9, 8.8])
    assert race.is_over


def test_a_race_has_not_ended_while_any_run_goes_on():
    race = Race([0], runs=3, most=10, best=np.inf)
    race.add(np.asarray([[9, np.nan], [9, 9], [9, 0.1]]), 0.5, 2)
    assert race.is_over  # Its rate diverges on a seed,
    assert not race.has_ended  # but another seed is still on its way.
    race.add(np.asarray([[np.nan], [0.1], [9]]), 0.5, 3)
    assert race.has_ended
    np.testing.assert_array_equal(race.reached[0], [np.nan, 2, 1])
    late = Race([0], runs=1, most=1, best=np.inf)
    late.add(np.asarray([[9]]), 0.5, 1)
    assert late.has_ended
