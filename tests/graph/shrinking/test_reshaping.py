# SPDX-License-Identifier: Apache-2.0
"""Reshapes share factors."""

import pytest

from plprune.graph.shrinking.reshaping import common_factors


@pytest.mark.parametrize(
    ("old", "new", "sizes", "old_factors", "new_factors"),
    [
        ((6, 4), (2, 12), (2, 3, 4), ((0, 1), (2,)), ((0,), (1, 2))),
        ((5, 1, 4), (20,), (5, 4), ((0,), (), (1,)), ((0, 1),)),
        ((), (1, 1), (), (), ((), ())),
        ((8,), (2, 2, 2), (2, 2, 2), ((0, 1, 2),), ((0,), (1,), (2,))),
    ],
)
def test_reshapes_share_factors(old, new, sizes, old_factors, new_factors):
    assert common_factors(old, new) == (sizes, old_factors, new_factors)


def test_reshapes_that_do_not_divide_have_no_factors():
    assert common_factors((4, 6), (6, 4)) is None
    assert common_factors((0, 3), (0,)) is None
    assert common_factors((3, 0), (0, 5)) is None


def test_reshapes_of_no_entries_have_the_factors_behind_the_first_empty_axis():
    assert common_factors((0, 4, 6), (0, 24)) == ((0, 4, 6), ((0,), (1,), (2,)), ((0,), (1, 2)))
    assert common_factors((2, 1, 0, 3), (2, 1, 0, 3))[1] == ((0,), (), (1,), (2,))
