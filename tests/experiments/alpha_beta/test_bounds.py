# SPDX-License-Identifier: Apache-2.0
"""The convergence bounds hold for runs on the analytic problems, every seed; nothing is tuned."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.alpha_beta import problems
from plprune.conditions import Pair, alpha_beta_frontier, points_at
from plprune.optimizers import adagrad_norm_max, bounds, dec_sps, inverse_root, ngn, nsgd, sps_max

NUM_STEPS, NUM_SEEDS, ALPHA = 300, 4, 4.0
ROWS, FUNCTIONS, DIMENSION = 2, 8, 4  # To which all problems are padded with zeros.


class Family(NamedTuple):
    """A problem as arrays, so that one program runs all: f_i = shape(|rows x + shift|^2)."""

    rows: np.ndarray  # [n, rows, d]
    shift: np.ndarray  # [n, rows]
    shape: np.ndarray  # 0: q / 2, 1: (added + q) / (below + q), 2: 1 - exp(-q).
    added: np.ndarray
    below: np.ndarray
    count: int
    start: np.ndarray  # Deviation of the first point.


def family(rows, shift, shape, scale, added=0.0, below=1.0):
    rows, shift = np.asarray(rows, float), np.asarray(shift, float)
    padded, shifts = np.zeros((FUNCTIONS, ROWS, DIMENSION)), np.zeros((FUNCTIONS, ROWS))
    padded[: len(rows), : rows.shape[1], : rows.shape[2]] = rows
    shifts[: len(rows), : rows.shape[1]] = shift
    numbers = np.broadcast_to(added, FUNCTIONS), np.broadcast_to(below, FUNCTIONS)
    start = scale * (np.arange(DIMENSION) < rows.shape[2])
    return Family(padded, shifts, np.array(shape), *map(np.array, numbers), len(rows), start)


def value_of(arrays, i, x):
    q = jnp.sum(jnp.square(arrays.rows[i] @ x + arrays.shift[i]))
    ratio = (arrays.added[i] + q) / (arrays.below[i] + q)
    return jnp.where(arrays.shape == 0, q / 2, jnp.where(arrays.shape == 1, ratio, -jnp.expm1(-q)))


def with_measured_pair(problem):
    """The tight beta for one alpha where the sum that the losses depend on is within [-.9, .7].

    That is where the runs stay, around -.1; far away, where the losses are flat, beta nears alpha.
    """
    xs = jnp.stack([jnp.linspace(-0.9, 0.7, 6001), jnp.zeros(6001)], axis=1)
    points = jax.vmap(lambda x: points_at(problem.losses, x, problem.project(x)))(xs)
    beta = float(alpha_beta_frontier(*points).beta(ALPHA))
    return problem._replace(pair=Pair(ALPHA, beta))


def plane(centres, shape, scale, **ratio):
    """Functions of the distance to centres on the diagonal of the plane."""
    centres = np.stack([centres, centres], axis=1)
    return family(np.broadcast_to(np.eye(2), (len(centres), 2, 2)), -centres, shape, scale, **ratio)


@pytest.fixture(scope="module")
def cases():
    """Interpolated, nearly interpolated, and the four examples on the plane, as they stand."""
    key, offsets = jax.random.key(5), np.linspace(0, 0.2, 5)
    rows = jax.random.normal(key, (FUNCTIONS, DIMENSION))[:, None]
    sums = np.ones((5, 1, 2))
    shallow = {"added": np.resize([1.0, 0.0], FUNCTIONS), "below": np.resize([4.0, 1.0], FUNCTIONS)}
    found = {
        "interpolated": (
            problems.interpolated(FUNCTIONS, DIMENSION, key=key),
            family(rows, np.zeros((FUNCTIONS, 1)), 0, 0.7),
        ),
        "nearly": (
            with_measured_pair(problems.shared_line(offsets, 2)),
            family(sums, offsets[:, None], 1, 0.15),
        ),
        # Its smallest beta is 4 alpha / 5 for every alpha here.
        "line": (
            problems.line()._replace(pair=Pair(5.0, 4.0)),
            family(sums[:2], np.array([[0.0], [1.0]]), 1, 1.0),
        ),
        "two_wells": (problems.two_wells(), plane([0.0, 2.0], 2, 1.0)),
        "shallow_well": (problems.shallow_well(), plane([0.0, 2.5], 1, 1.0, **shallow)),
        "near_wells": (problems.near_wells(), plane([0.0, 1.0], 1, 1.0)),
    }
    return {
        name: Case(problem, arrays, looks(problem)) for name, (problem, arrays) in found.items()
    }


class Case(NamedTuple):
    problem: problems.Problem
    arrays: Family
    seen: Callable  # path [seed, step, d] -> f - f* and the distance to S.


def looks(problem):
    def one(x):
        excess = jnp.mean(problem.losses(x)) - problem.minimum
        return excess, jnp.linalg.norm(x - problem.project(x))

    return jax.jit(jax.vmap(jax.vmap(one)))


def run(cases, tx):
    """Paths [seed, step, d] and gradient norms [seed, step] of every case; one f_i per step."""

    def seed(arrays, key):
        start = arrays.start * jax.random.normal(jax.random.fold_in(key, 0), (DIMENSION,))

        def step(carry, key):
            x, state = carry
            i = jax.random.randint(key, (), 0, arrays.count)
            value, gradient = jax.value_and_grad(value_of, argnums=2)(arrays, i, x)
            updates, state = tx.update(gradient, state, x, value=value)
            return (optax.apply_updates(x, updates), state), (x, jnp.linalg.norm(gradient))

        return jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, NUM_STEPS))[1]

    arrays = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(c.arrays for c in cases.values()))
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    together = jax.vmap(jax.vmap(seed, (None, 0)), (0, None))
    paths, norms = jax.jit(together)(arrays, keys)
    return dict(zip(cases, zip(paths, norms, strict=True), strict=True))


def margin(problem):
    return problem.pair.alpha - problem.pair.beta


def common(problem, distances, largest=False):
    distance = distances.max() if largest else distances[:, 0].max()
    return {
        "smoothness": problem.smoothness,
        "squared_distance": float(distance) ** 2,
        "noise": problem.noise,
    }


def sgd(found):
    step = min(margin(p) / (2 * p.smoothness) for p in found)

    def bound(problem, _, distances):
        setting = common(problem, distances)
        return bounds.sgd_bound(NUM_STEPS, problem.pair, step_size=step, **setting)

    return optax.sgd(step), bound


def sgd_decreasing(found):
    step = min(margin(p) / (2 * p.smoothness) for p in found)

    def bound(problem, _, distances):
        setting = common(problem, distances)
        return bounds.sgd_decreasing_bound(NUM_STEPS, problem.pair, step_size=step, **setting)

    return optax.sgd(inverse_root(step)), bound


def polyak(found):
    options = {"c": max(1 / margin(p) for p in found), "max_step_size": 2.0}

    def bound(problem, _, distances):
        setting = common(problem, distances)
        return bounds.sps_max_bound(NUM_STEPS, problem.pair, **options, **setting)

    return sps_max(**options), bound


def decreasing_polyak(found):
    options = {"c": max(1 / margin(p) for p in found), "max_step_size": 2.0}

    def bound(problem, _, distances):
        setting = common(problem, distances, True)
        return bounds.dec_sps_bound(NUM_STEPS, problem.pair, **options, **setting)

    return dec_sps(**options), bound


def gauss_newton(found):
    del found

    def bound(problem, _, distances):
        return bounds.ngn_bound(
            NUM_STEPS, problem.pair, step_size=0.5, mean_minimum=float(problem.minima.mean()),
            **common(problem, distances),
        )  # fmt: skip

    return ngn(0.5), bound


def decreasing_gauss_newton(found):
    first = min(0.5 * margin(p) / p.smoothness for p in found)
    steps = first / np.sqrt(np.arange(NUM_STEPS) + 1)

    def bound(problem, _, distances):
        return bounds.ngn_decreasing_bound(steps, problem.pair, **common(problem, distances))

    return ngn(inverse_root(first)), bound


def adagrad(found):
    del found

    def bound(problem, gradients, distances):
        setting = common(problem, distances, True)
        setting.pop("smoothness")
        return bounds.adagrad_norm_max_bound(
            NUM_STEPS, problem.pair, step_size=0.5, initial=0.5,
            largest_gradient=float(gradients.max()), **setting,
        )  # fmt: skip

    return adagrad_norm_max(0.5, initial=0.5), bound


METHODS = (
    sgd, sgd_decreasing, polyak, decreasing_polyak, gauss_newton, decreasing_gauss_newton, adagrad,
)  # fmt: skip


def test_the_arrays_are_the_problems(cases):
    x = np.array([0.3, -0.7, 0.2, 0.5])
    for problem, arrays, _ in cases.values():
        inside = x * (arrays.start > 0)
        found = [value_of(arrays, i, inside) for i in range(arrays.count)]
        np.testing.assert_allclose(found, problem.losses(inside[: problem.dimension]), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_bounds_hold_for_every_seed(cases, method):
    tx, bound = method([case.problem for case in cases.values()])
    for name, (path, gradients) in run(cases, tx).items():
        problem, _, seen = cases[name]
        excess, distances = seen(path[..., : problem.dimension])
        if name == "nearly":
            assert distances.max() * np.sqrt(2) < 0.8  # Within the region of the pair.
        limit = bound(problem, gradients, distances)
        assert (excess.min(axis=1) <= limit).all()
        assert limit < np.inf
        if name == "interpolated":  # No noise: here the bounds say something.
            assert limit < excess[:, 0].max()


def test_nsgd_bound_on_the_full_gradient():
    problem = problems.line()
    step, momentum, x = 0.01, 0.5, jnp.array([0.6, 0.3])

    def objective(x):
        return jnp.mean(problem.losses(x))

    tx = nsgd(step, momentum=momentum)
    state, norms = tx.init(x), []
    bound = bounds.nsgd_bound(
        100, step_size=step, momentum=momentum, smoothness=problem.smoothness,
        excess=float(objective(x)) - problem.minimum,
    )  # fmt: skip
    update = jax.jit(lambda g, s: tx.update(g, s))
    gradient = jax.jit(jax.grad(objective))
    for _ in range(100):
        norms.append(float(jnp.linalg.norm(gradient(x))))
        updates, state = update(gradient(x), state)
        x = optax.apply_updates(x, updates)
    assert min(norms) <= bound < 2 * norms[0]


COMMON = {"smoothness": 1.0, "squared_distance": 1.0, "noise": 0.0}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bounds.sgd_bound(0, Pair(2.0, 1.0), step_size=0.1, **COMMON), "num_steps"),
        (lambda: bounds.sgd_bound(1, Pair(1.0, 1.0), step_size=0.1, **COMMON), "alpha > beta"),
        (
            lambda: bounds.sgd_bound(1, Pair(2.0, 1.0), step_size=0.6, **COMMON),
            r"step_size must lie in \(0, 0.5\], got 0.6",
        ),
        (
            lambda: bounds.sps_max_bound(1, Pair(2.0, 1.0), c=0.5, max_step_size=1.0, **COMMON),
            "c must exceed 0.5, got 0.5",
        ),
        (
            lambda: bounds.ngn_bound(1, Pair(2.0, 1.5), step_size=1.0, mean_minimum=0.0, **COMMON),
            r"alpha >= beta \+ 1",
        ),
        (
            lambda: bounds.ngn_decreasing_bound(np.array([1.0]), Pair(2.0, 1.0), **COMMON),
            r"step_sizes must lie in \(0, 1\)",
        ),
        (
            lambda: bounds.nsgd_bound(1, step_size=1.0, momentum=1.0, smoothness=1.0, excess=1.0),
            r"momentum must lie in \[0, 1\)",
        ),
    ],
)
def test_bounds_refuse_what_their_theorems_exclude(call, words):
    with pytest.raises(ValueError, match=words):
        call()
