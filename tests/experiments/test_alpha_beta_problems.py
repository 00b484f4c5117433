"""The analytic examples: minimisers, values, and the pairs that hold everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.alpha_beta import problems
from plprune.conditions import points_at, smallest_beta

NAMES = ("line", "two_wells", "shallow_well", "near_wells")
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
