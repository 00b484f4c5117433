# SPDX-License-Identifier: Apache-2.0
"""The feasible polygon against a brute force over all points, and its degenerate cases."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plprune.conditions import (
    Pair,
    alpha_beta_frontier,
    noise_factor,
    smallest_beta,
    smallest_pair,
    worst_margins,
)

COARSE = st.floats(-4, 4, width=16)
POINTS = st.sampled_from([1, 2, 9]).flatmap(lambda n: arrays(float, (3, n), elements=COARSE))
ALPHAS = np.array([0.0, 0.3, 1.0, 2.5, 7.0, 100.0])


def brute_force(alpha, inner, gap, excess):
    betas = [0.0]
    for a, b, c in zip(inner, gap, excess, strict=True):
        if c > 0:
            betas.append((alpha * b - a) / c)
        elif a < alpha * b:
            return np.inf
    return max(betas)


def test_one_point_is_its_own_line():
    frontier = alpha_beta_frontier(np.array([-1.0]), np.array([1.0]), np.array([2.0]))
    np.testing.assert_allclose(frontier.beta(ALPHAS), (ALPHAS + 1) / 2)
    # alpha - (alpha + 1) / 2 = .1 at alpha = 1.2.
    np.testing.assert_allclose(smallest_pair(frontier), (1.2, 1.1), rtol=1e-12)
    np.testing.assert_allclose(smallest_pair(frontier, margin=0.0), (1.0, 1.0), rtol=1e-12)


def test_a_convex_point_needs_no_beta():
    frontier = alpha_beta_frontier(np.array([1.0]), np.array([0.5]), np.array([1.0]))
    np.testing.assert_allclose(smallest_pair(frontier), (0.1, 0.0), atol=1e-15)
    np.testing.assert_allclose(frontier.beta(2.0), 0.0, atol=1e-15)
    np.testing.assert_allclose(frontier.beta(4.0), 1.0)


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_frontier_and_smallest_beta_are_the_brute_force(points):
    inner, gap, excess = points[0], points[1], np.abs(points[2])
    expected = [brute_force(alpha, inner, gap, excess) for alpha in ALPHAS]
    frontier = alpha_beta_frontier(inner, gap, excess)
    tiny = excess[excess > 0].min(initial=1.0)
    np.testing.assert_allclose(frontier.beta(ALPHAS), expected, rtol=1e-9, atol=1e-11 / tiny)
    found = [smallest_beta(alpha, inner, gap, excess) for alpha in ALPHAS]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_tiny_excesses_do_not_blur_the_other_lines():
    inner, gap = np.array([1.0, 1.0, -1.0, 0.3]), np.array([-1.0, 1.0, 1.0, 0.5])
    excess = np.array([1e-30, 1e-12, 2.0, 1.0])
    alphas = ALPHAS[ALPHAS != 1]  # There the second line starts: a quotient of rounding errors.
    expected = [brute_force(alpha, inner, gap, excess) for alpha in alphas]
    frontier = alpha_beta_frontier(inner, gap, excess)
    np.testing.assert_allclose(frontier.beta(alphas), expected, rtol=1e-9)


def test_a_frontier_of_many_lines_takes_less_than_two_seconds():
    """The worst case: every line touches a parabola, so that none can be left out."""
    at = np.linspace(0, 1, 10**6)
    start = time.process_time()
    frontier = alpha_beta_frontier(at**2, 2 * at, np.ones_like(at))
    assert time.process_time() - start < 4
    np.testing.assert_allclose(frontier.beta(np.array([0.3, 1.0])), [0.09, 1.0], rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_smallest_pair_is_feasible_and_nothing_below_it_is(points):
    inner, gap, excess = points[0], points[1], np.abs(points[2]) + 0.1
    pair = smallest_pair(alpha_beta_frontier(inner, gap, excess))
    if np.isinf(pair.alpha):
        grid = np.linspace(0, 1e3, 50)
        assert all(brute_force(a, inner, gap, excess) > a - 0.1 - 1e-9 for a in grid)
    else:
        scale = 1e-9 * (1 + pair.alpha)
        assert pair.alpha >= pair.beta + 0.1 - scale
        assert worst_margins(*map(np.array, pair), inner, gap, excess) >= -10 * scale
        for alpha in pair.alpha * np.linspace(0, 1, 20, endpoint=False):
            assert brute_force(alpha, inner, gap, excess) > alpha - 0.1 - scale


@settings(deadline=None, max_examples=60)
@given(POINTS)
def test_noise_factor_is_the_least_quotient_of_feasible_pairs(points):
    inner, gap, excess = points[0], points[1], np.abs(points[2]) + 0.1
    found = noise_factor(alpha_beta_frontier(inner, gap, excess))
    # The quotient is least between a grid's points or at a corner: where two points' lines cross.
    with np.errstate(all="ignore"):
        zeros = inner / gap
        slopes, starts = gap / excess, -inner / excess
        crossings = (starts[:, None] - starts) / (slopes - slopes[:, None])
    corners = np.concatenate([zeros, crossings.ravel()])
    corners = corners[np.isfinite(corners) & (corners > 1e-6)]
    alphas = np.concatenate([np.geomspace(1e-6, 1e9, 3000), corners])
    betas = alpha_beta_frontier(inner, gap, excess).beta(alphas)
    room = alphas - betas
    feasible = room > 1e-12 * alphas
    least = (betas[feasible] / room[feasible]).min(initial=np.inf)
    assert found <= least * (1 + 1e-6) + 1e-9
    assert found >= 0.95 * least - 1e-4 or np.isinf(least)


def test_noise_factor_in_closed_form():
    one = np.ones(1)
    # beta >= 4 alpha / 5 alone, as of the line of minimisers far away: 4.
    np.testing.assert_allclose(noise_factor(alpha_beta_frontier(0 * one, 0.8 * one, one)), 4.0)
    # beta = 0 works up to alpha = 2.
    assert noise_factor(alpha_beta_frontier(one, 0.5 * one, one)) == 0
    # beta >= alpha + 1: no pair has alpha > beta.
    assert noise_factor(alpha_beta_frontier(-one, one, one)) == np.inf
    # beta >= (alpha + 1) / 2, and an excess of 0 ends alpha at 2: there beta = 1.5, and 1.5 / .5.
    bounded = alpha_beta_frontier(np.array([2.0, -1.0]), np.ones(2), np.array([0.0, 2.0]))
    np.testing.assert_allclose(noise_factor(bounded), 3.0)
    nothing = alpha_beta_frontier(-one, 0 * one, 0 * one)
    assert noise_factor(nothing) == np.inf


def test_worst_margin_changes_sign_on_the_frontier():
    rng = np.random.default_rng(0)
    inner, gap, excess = rng.normal(size=500), rng.normal(size=500), rng.random(500) + 0.1
    alphas = np.linspace(0, 5, 7)
    betas = alpha_beta_frontier(inner, gap, excess).beta(alphas)
    np.testing.assert_allclose(worst_margins(alphas, betas, inner, gap, excess), 0, atol=1e-10)
    above, below = betas + 0.01, betas - 0.01
    assert (worst_margins(alphas, above, inner, gap, excess) > 0).all()
    assert (worst_margins(alphas, below, inner, gap, excess) < 0).all()
    direct = np.min(inner - 2 * gap + 3 * excess)
    np.testing.assert_allclose(
        worst_margins(np.array(2.0), np.array(3.0), inner, gap, excess), direct, rtol=1e-12
    )


def test_points_with_zero_excess_bound_alpha_or_exclude_everything():
    zero = np.zeros(1)
    frontier = alpha_beta_frontier(np.array([1.0]), np.array([0.5]), zero)
    assert (frontier.low, frontier.high) == (0.0, 2.0)
    assert frontier.beta(2.0) == 0
    assert frontier.beta(2.1) == np.inf
    nothing = alpha_beta_frontier(np.array([-1.0]), zero, zero)
    assert nothing.beta(1.0) == np.inf
    assert smallest_pair(nothing) == Pair(np.inf, np.inf)
    two = np.array([-2.0, -1.0]), np.array([-1.0, 0.5]), np.array([0.0, 1.0])
    frontier = alpha_beta_frontier(*two)
    assert frontier.low == 2.0
    np.testing.assert_allclose(smallest_pair(frontier), (2.2, 2.1), rtol=1e-12)
    bounded = alpha_beta_frontier(np.array([1.0, -5.0]), np.array([1.0, 0.0]), np.array([0.0, 1]))
    assert smallest_pair(bounded) == Pair(np.inf, np.inf)


def test_smallest_beta_is_infinite_where_excess_is_not_positive_and_violated():
    one, zero = jnp.ones(1), jnp.zeros(1)
    assert smallest_beta(1.0, -one, zero, zero) == jnp.inf
    assert smallest_beta(1.0, one, zero, zero) == 0
    assert smallest_beta(1.0, -one, zero, -one) == jnp.inf
    assert smallest_beta(1.0, jnp.nan * one, zero, one) == jnp.inf


def test_smallest_beta_under_jit_and_vmap():
    inner, gap, excess = jnp.array([1.0, -1.0]), jnp.array([0.5, 1.0]), jnp.array([1.0, 2.0])
    with jax.numpy_rank_promotion("allow"):
        together = jax.jit(jax.vmap(lambda a: smallest_beta(a, inner, gap, excess)))(ALPHAS)
    alone = [smallest_beta(a, inner, gap, excess) for a in ALPHAS]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_a_million_points_take_less_than_a_second():
    rng = np.random.default_rng(0)
    inner, gap, excess = rng.normal(size=10**6), rng.normal(size=10**6), rng.random(10**6) + 0.01
    start = time.process_time()
    frontier = alpha_beta_frontier(inner, gap, excess)
    assert time.process_time() - start < 1.5  # .5 on a quiet machine.
    np.testing.assert_allclose(
        frontier.beta(3.0), smallest_beta(3.0, inner, gap, excess), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ((np.ones(2), np.ones(3), np.ones(2)), r"gap must have shape \(2,\), got \(3,\)"),
        ((np.ones(0), np.ones(0), np.ones(0)), "at least one point"),
        ((np.ones(1), np.ones(1), -np.ones(1)), "excess must be at least 0, got -1.0"),
        ((np.array([np.nan]), np.ones(1), np.ones(1)), "inner must be finite, got nan"),
        ((np.ones(1), np.ones(1), np.full(1, 5e-324)), "quotients overflow"),
    ],
)
def test_refuses_points_that_say_nothing(points, words):
    with pytest.raises(ValueError, match=words):
        alpha_beta_frontier(*points)


def test_refuses_other_arguments():
    frontier = alpha_beta_frontier(np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="margin must be at least 0, got -1"):
        smallest_pair(frontier, margin=-1.0)
    with pytest.raises(ValueError, match="betas must have shape"):
        worst_margins(np.ones(2), np.ones(3), np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="excess must have shape"):
        smallest_beta(1.0, np.ones(1), np.ones(1), np.ones(2))
