# SPDX-License-Identifier: Apache-2.0
"""Factors of axes against NumPy: which entries lie where after a reshape, and what is constant."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plprune.graph.following.layouts import (
    FOLLOWED,
    OWN,
    SAME,
    Factor,
    aligned,
    regrouped,
    uniform_layout,
)

F, REST = Factor(4, FOLLOWED), Factor(6, OWN)


def example_of(layout):
    """At each position, the place along the followed factor."""
    sizes = [f.size for axis in layout for f in axis]
    kinds = [f.kind for axis in layout for f in axis]
    place = kinds.index(FOLLOWED)
    shape = [1] * len(sizes)
    shape[place] = sizes[place]
    rows = np.broadcast_to(np.arange(sizes[place]).reshape(shape), sizes)
    return rows.reshape([prod(f.size for f in axis) for axis in layout])


@given(
    before=st.lists(st.integers(2, 4), max_size=2),
    after=st.lists(st.integers(2, 4), max_size=2),
    data=st.data(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_reshapes_keep_the_followed_entries(before, after, data):
    layout = (
        *uniform_layout(before, OWN),
        (Factor(5, FOLLOWED),),
        *uniform_layout(after, OWN),
    )
    rows = example_of(layout)
    sizes = [*before, 5, *after]
    cuts = data.draw(st.lists(st.booleans(), min_size=len(sizes) - 1, max_size=len(sizes) - 1))
    shape = [sizes[0]]
    for cut, size in zip(cuts, sizes[1:], strict=True):
        shape = [*shape, size] if cut else [*shape[:-1], shape[-1] * size]
    moved = regrouped(layout, shape)
    np.testing.assert_array_equal(example_of(moved), rows.reshape(shape))
    np.testing.assert_array_equal(example_of(regrouped(moved, sizes)), rows)


@pytest.mark.parametrize("shape", [(2, 12), (2, 2, 6), (3, 8)])
def test_a_reshape_that_splits_the_followed_axis_is_none(shape):
    assert regrouped(((F,), (REST,)), shape) is None


def test_own_axes_merge_and_split_anew():
    assert regrouped(((Factor(6, OWN),), (Factor(4, OWN),)), (8, 3)) == (
        (Factor(8, OWN),),
        (Factor(3, OWN),),
    )
    assert regrouped(((Factor(6, SAME),), (Factor(4, OWN),)), (8, 3)) is None
    assert regrouped(((), (F,)), (1, 4, 1)) == ((), (F,), ())


def test_axes_meet_in_common_factors():
    assert aligned([(F, REST), (Factor(24, OWN),)]) == [(4, (FOLLOWED, OWN)), (6, (OWN, OWN))]
    assert aligned([(F, REST), ()]) == [(4, (FOLLOWED, SAME)), (6, (OWN, SAME))]
    assert aligned([(F,), (Factor(2, SAME), Factor(2, SAME))]) == [(4, (FOLLOWED, SAME))]
    assert aligned([(F, REST), (REST, F)]) is None
    assert aligned([(F,), (Factor(2, OWN), Factor(2, SAME))]) is None
    assert aligned([(), ()]) == []
    assert aligned([(Factor(0, OWN),), ()]) == [(0, (OWN, OWN))]
