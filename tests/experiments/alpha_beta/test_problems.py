# SPDX-License-Identifier: Apache-2.0
"""The analytic examples: minimisers, values, and the pairs that hold everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.alpha_beta import problems
from experiments.alpha_beta.problems import learning
from plprune.conditions import points_at, smallest_beta

NAMES = ("line", "two_wells", "shallow_well", "near_wells")
CENTRES = np.array([[0.0, 0.0, 0.0], [1.1, 0.0, 0.3], [0.0, 0.9, -0.2], [0.4, 0.4, 1.0]])
COORDINATE = st.floats(-30, 30)


@pytest.fixture(scope="module")
def built():
    """Problem and its jitted points, by name."""
    found = {}
    for name in NAMES:
        problem = getattr(problems, name)()

        def points(x, problem=problem):
            return points_at(problem.losses, x, problem.project(x), jnp.asarray(problem.minima))

        found[name] = problem, jax.jit(jax.vmap(points))
    return found


def gradient(problem, x):
    return np.asarray(jax.grad(lambda x: jnp.mean(problem.losses(x)))(jnp.asarray(x)))


def value(problem, x):
    return float(jnp.mean(problem.losses(jnp.asarray(x))))


@pytest.mark.parametrize(
    ("name", "near", "expected", "minimum"),
    [
        ("line", [1.0, 2.0], [-0.75, 0.25], 0.2),
        ("two_wells", [0.2, 0.0], [0.00067, 0.00067], 0.49983),
        ("two_wells", [1.5, 2.0], [1.99933, 1.99933], 0.49983),
        ("shallow_well", [0.0, 0.0], [2.4717, 2.4717], 0.408313),
        ("near_wells", [0.2, 0.2], [0.159375, 0.159375], 0.316987),
        ("near_wells", [0.8, 0.8], [0.840625, 0.840625], 0.316987),
    ],
)
def test_minimisers_are_stationary_and_where_they_should_be(built, name, near, expected, minimum):
    problem = built[name][0]
    found = problem.project(jnp.array(near))
    np.testing.assert_allclose(found, expected, atol=6e-6 if name != "shallow_well" else 6e-5)
    np.testing.assert_allclose(gradient(problem, found), 0, atol=1e-14)
    np.testing.assert_allclose(problem.minimum, minimum, atol=6e-6)
    np.testing.assert_allclose(value(problem, found), problem.minimum, rtol=1e-13)


def test_saddle_and_local_minimum(built):
    wells, shallow = built["two_wells"][0], built["shallow_well"][0]
    np.testing.assert_allclose(gradient(wells, [1.0, 1.0]), 0, atol=1e-15)
    np.testing.assert_allclose(value(wells, [1.0, 1.0]), 1 - np.exp(-2), rtol=1e-12)
    np.testing.assert_allclose(gradient(shallow, [0.0804, 0.0804]), 0, atol=1e-4)
    np.testing.assert_allclose(value(shallow, [0.0804, 0.0804]), 0.586866, atol=1e-6)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=8, max_size=8))
def test_the_stated_pairs_hold_everywhere(built, points):
    for problem, points_of in built.values():
        inner, gap, excess = points_of(jnp.array(points))
        alpha, beta = problem.pair
        margins = inner - alpha * gap + beta * excess
        assert (margins >= -1e-12 * alpha).all()


def test_tight_beta_of_the_line_is_four_fifths_of_alpha(built):
    """At the minimisers f_i(x) - f_i(x_p) = f_i* + .2 = 0 asks nothing; near f_i = 1 gap is 4/5."""
    _, points_of = built["line"]
    u = np.concatenate([np.linspace(-8, 8, 1601), [-1e6, 1e6]])
    points = points_of(jnp.asarray(np.stack([u, np.zeros_like(u)], axis=1)))
    for alpha in (0.6, 2.5, 100.0):
        np.testing.assert_allclose(smallest_beta(alpha, *points), 0.8 * alpha, rtol=1e-6)
    assert smallest_beta(0.4, *points) > 0.8 * 0.4 + 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_smoothness_bounds_the_hessians(built, name):
    problem = built[name][0]
    grid = np.stack(np.meshgrid(np.linspace(-3, 4, 29), np.linspace(-3, 4, 29)), -1).reshape(-1, 2)
    hessians = jax.vmap(jax.hessian(problem.losses))(jnp.asarray(grid))
    largest = np.abs(np.linalg.eigvalsh(np.asarray(hessians))).max()
    assert largest <= problem.smoothness * (1 + 1e-9)
    assert largest >= 0.7 * problem.smoothness


def test_many_functions_share_a_hyperplane():
    problem = problems.shared_line(np.array([0.0, 1.0]), 3)
    x = jnp.array([2.0, -1.0, 4.0])
    np.testing.assert_allclose(problem.project(x).sum(), -0.5, atol=1e-6)
    np.testing.assert_allclose(problem.minimum, 0.2, rtol=1e-12)
    many = problems.shared_line(np.linspace(0, 0.5, 6), 2)
    np.testing.assert_allclose(gradient(many, many.project(x[:2])), 0, atol=1e-7)
    assert 0 < many.noise < 0.05


def test_interpolated_least_squares_needs_no_beta(key):
    problem = problems.interpolated(4, 6, key=key)
    x = jnp.arange(6.0)
    end = problem.project(x)
    np.testing.assert_allclose(problem.losses(end), 0, atol=1e-20)
    inner, gap, _ = points_at(problem.losses, x, end, 0.0)
    np.testing.assert_allclose(inner, 2 * gap, rtol=1e-9)
    assert problem.noise == 0


def test_wells_in_many_dimensions_are_the_two_wells_of_the_plane(built):
    near = built["near_wells"][0]
    same = problems.wells(np.array([[0.0, 0.0], [1.0, 1.0]]))
    x = jnp.array([0.1, 0.3])
    np.testing.assert_allclose(same.project(x), near.project(x), atol=1e-7)
    np.testing.assert_allclose(same.losses(x), near.losses(x), rtol=1e-12)
    np.testing.assert_allclose(same.minimum, near.minimum, rtol=1e-12)
    # 1 / c against the 2 / c of the stated pair.
    np.testing.assert_allclose(same.pair.alpha, 41.37 / 2, rtol=1e-4)


@pytest.fixture(scope="module")
def tubes():
    """Problems with a pair near their minimisers (everywhere for wells), and jitted points."""
    found = {
        "wells": problems.wells(CENTRES),
        "factorization": learning.factorization(),
        "relu_logistic": learning.relu_logistic(hidden=3),
    }

    def points(problem, shift, start):
        # A point of S for sure, and a shift by at most `radius`, or anything where it is inf.
        length = jnp.linalg.norm(shift)
        reach = jnp.minimum(problem.radius, length) / jnp.where(length > 0, length, 1)
        x = problem.project(start) + shift * reach
        return points_at(problem.losses, x, problem.project(x), jnp.asarray(problem.minima))

    return {
        name: (p, jax.jit(jax.vmap(lambda s, x, p=p: points(p, s, x)))) for name, p in found.items()
    }


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 3.0, 20.0]))
def test_pairs_of_the_other_problems_hold_where_they_are_stated(tubes, seed, scale):
    rng = np.random.default_rng(seed)
    for problem, points_of in tubes.values():
        shape = (16, problem.dimension)
        inner, gap, excess = points_of(scale * rng.normal(size=shape), rng.normal(size=shape))
        alpha, beta = problem.pair
        assert (inner - alpha * gap + beta * excess >= -1e-12 * alpha).all()
        assert (excess >= -1e-12).all()


@pytest.mark.parametrize("name", ["wells", "factorization", "relu_logistic"])
def test_projections_are_minimisers_and_the_nearest_ones(tubes, name):
    problem = tubes[name][0]
    rng = np.random.default_rng(1)
    points = rng.normal(size=(60, problem.dimension))
    ends = np.asarray(jax.jit(jax.vmap(problem.project))(points))
    values = jax.jit(jax.vmap(lambda x: jnp.mean(problem.losses(x))))
    np.testing.assert_allclose(values(ends), problem.minimum, rtol=1e-9)
    assert (np.asarray(values(points)) >= problem.minimum).all()
    distances = np.linalg.norm(points[:, None] - ends[None], axis=-1)
    assert (np.diag(distances)[:, None] <= distances + 1e-9).all()
    np.testing.assert_allclose(jax.vmap(problem.project)(ends), ends, atol=1e-6)


def test_factorization_in_closed_form():
    """alpha = 2 C / c with c the smallest squared noise, here C = (noise + radius^2 / 2)^2 / 2."""
    problem = learning.factorization(2, signal=1.0, noise=0.5, radius=1.0)
    assert problem.pair == (4.0, 3.0)
    np.testing.assert_allclose(problem.minimum, 0.125)
    np.testing.assert_allclose(problem.losses(jnp.array([2.0, 2.0, 0.5, 0.5])), 0.125)
    # Roots of (g^2 - 1)(g^2 - p g + 1): the nearest is 1 up to p = 2, not at p = 3.
    np.testing.assert_allclose(problem.project(jnp.full(4, 1.5)), np.ones(4), rtol=1e-12)
    np.testing.assert_allclose(problem.project(-jnp.full(4, 1.5)), -np.ones(4), rtol=1e-12)
    far = np.sort(problem.project(jnp.full(4, 3.0)))[::3]
    np.testing.assert_allclose(far, (3 + np.array([-1, 1]) * np.sqrt(5)) / 2, rtol=1e-12)
    # The origin is a saddle: no gradient, lower and higher values around it.
    np.testing.assert_allclose(gradient(problem, np.zeros(4)), 0)
    up, down = value(problem, [0.1, 0.1, -0.1, -0.1]), value(problem, [0.1, 0.1, 0.1, 0.1])
    assert down < value(problem, np.zeros(4)) < up


def test_relu_logistic_minima_of_single_examples():
    """f_i* of one example by a fine search over the product v w, which is balanced at best."""
    problem = learning.relu_logistic(((3.0, 1.0), (-0.5, -1.0), (0.05, 1.0)), penalty=0.1)
    t = np.linspace(0, 20, 200_001)
    for x, minimum in zip((3.0, 0.5, 0.05), problem.minima, strict=True):
        np.testing.assert_allclose(np.min(np.log1p(np.exp(-x * t)) + 0.1 * t), minimum, atol=1e-8)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: learning.factorization(3), "size must be even and at least 2, got 3"),
        (lambda: learning.factorization(noise=2.0), r"noise must lie in \(0, 1.0\)"),
        (lambda: learning.relu_logistic(hidden=1), "hidden must be at least 2, got 1"),
        (lambda: learning.relu_logistic(penalty=0.0), "penalty must be positive"),
        (lambda: learning.relu_logistic(((0.0, 1.0),)), "inputs other than 0"),
        (lambda: problems.wells(np.zeros((0, 2))), "at least one point"),
    ],
)
def test_problems_refuse_what_they_cannot_solve(build, words):
    with pytest.raises(ValueError, match=words):
        build()
