# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot work are named; settings that can are let through in silence."""

import warnings

import pytest

from plprune import matrix_sensing as ms


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d": 0}, "d must be at least 1, got 0"),
        ({"r": 6}, r"r must lie in \[1, d = 5\], got 6"),
        ({"r": 0}, r"r must lie in \[1, d = 5\], got 0"),
        ({"k": 1}, "k must be at least r = 2, got 1"),
        ({"n": 8}, "n must be at least 9, .* not identifiable"),
        ({"noise": -1.0}, "noise, must be finite and at least 0, got -1.0"),
        ({"noise": float("nan")}, "noise, must be finite"),
    ],
)
def test_impossible_problems_are_refused(changes, words):
    good = {"d": 5, "k": 5, "r": 2, "n": 9, "noise": 0.1}
    ms.check_problem(**good)
    ms.check_problem(5, 5, 2)
    with pytest.raises(ValueError, match=words):
        ms.check_problem(**good | changes)


@pytest.mark.parametrize(
    ("strength", "beta", "form", "words"),
    [
        (0.1, 0.0, "rational", "beta must be positive and finite, got 0.0"),
        (0.1, float("nan"), "rational", "beta must be positive"),
        (-0.1, 1e-3, "rational", "lambda must be at least 0 and finite, got -0.1"),
        (0.1, 1e-3, "l2", "form must be rational or convex, got 'l2'"),
    ],
)
def test_impossible_regularisers_are_refused(strength, beta, form, words):
    with pytest.raises(ValueError, match=words):
        ms.check_regulariser(strength, beta, gain=1.0, form=form)


def test_collapse_is_warned_of_from_the_escape_bound_on():
    bound = ms.escape_bound(1.0, beta=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ms.check_regulariser(0.99 * bound, 1e-3, gain=1.0)
        ms.check_regulariser(1.9 * bound, 1e-3, gain=1.0, form="convex")
    with pytest.warns(ms.CollapseWarning, match=r"below 0.0632 .* got 0.0633.* collapse"):
        ms.check_regulariser(1.001 * bound, 1e-3, gain=1.0)
