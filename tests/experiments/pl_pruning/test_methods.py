# SPDX-License-Identifier: Apache-2.0
"""The table of methods: each named once, seen apart, and made of functions that exist."""

from pkgutil import resolve_name

import pytest

from experiments.pl_pruning import methods
from experiments.pl_pruning.methods import CONTROLS, LEARNED, METHODS, SCORED, Control
from experiments.report.style import COLOURS, LINES, looks
from plprune import scores


def test_every_method_is_named_once():
    assert list(METHODS) == ["dense", *LEARNED, *SCORED, *CONTROLS]
    assert len(METHODS) == len(methods._ALL)


def test_every_method_has_a_look_of_its_own_on_curves_and_as_points():
    for colour, line, _ in methods.LOOKS.values():
        assert colour in COLOURS
        assert line in LINES
    drawn = looks(METHODS, methods.LOOKS).values()
    for part in ("linestyle", "marker"):
        assert len({(look["color"], str(look[part])) for look in drawn}) == len(METHODS)


@pytest.mark.parametrize("name", [*LEARNED, *SCORED])
def test_functions_are_of_the_library(name):
    by = METHODS[name].by
    assert callable(resolve_name(by.function if name in SCORED else by.objective))


def test_every_score_of_the_library_is_compared():
    compared = {METHODS[name].by.function for name in SCORED}
    assert {f"plprune.scores:{name}" for name in scores.SCORES} <= compared


def test_controls_take_the_nodes_of_a_method_that_is_none_itself():
    for name in CONTROLS:
        by = METHODS[name].by
        assert not by.of or not isinstance(METHODS[by.of].by, Control)
    assert methods.FOR_MLP == (
        "random_tapered", "random_flared", "random_scaled", "magnitude_scaled", "dense_scaled",
        "fresh",
    )  # fmt: skip


def test_whole_networks_are_the_dense_one_and_those_at_another_scale():
    assert set(methods.KEEP_ALL) == {"dense", "dense_scaled", "dense_small"}
    assert set(methods.WHOLE) == {"dense", "dense_small"}  # The scale is kappa's at a fraction.
