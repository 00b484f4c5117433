# SPDX-License-Identifier: Apache-2.0
"""Schedules in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.gating import kept_fraction

STEPS = np.arange(0, 15)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("one_shot", np.full(15, 0.2)),
        ("linear", 1 - 0.8 * np.minimum(STEPS / 10, 1)),
        ("cubic", 0.2 + 0.8 * (1 - np.minimum(STEPS / 10, 1)) ** 3),
    ],
)
def test_schedules_are_their_closed_forms(schedule, expected):
    fraction = kept_fraction(schedule, keep_fraction=0.2, num_steps=10)
    np.testing.assert_allclose(jax.vmap(fraction)(jnp.asarray(STEPS)), expected, atol=1e-6)


def test_a_schedule_without_steps_is_there_at_once():
    fraction = kept_fraction("cubic", keep_fraction=0.3, num_steps=0)
    np.testing.assert_allclose(fraction(jnp.asarray(0)), 0.3, rtol=1e-6)


def test_schedules_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match=r"schedule must be one of .*, got 'square'"):
        kept_fraction("square", keep_fraction=0.5, num_steps=3)
    with pytest.raises(ValueError, match=r"keep_fraction must lie in \(0, 1\], got 0.0"):
        kept_fraction("linear", keep_fraction=0.0, num_steps=3)
    with pytest.raises(ValueError, match="num_steps must be at least 0, got -1"):
        kept_fraction("linear", keep_fraction=0.5, num_steps=-1)
