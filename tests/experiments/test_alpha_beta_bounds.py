"""The convergence bounds hold for runs on the analytic problems, every seed; nothing is tuned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.alpha_beta import problems
from plprune.conditions import Pair, alpha_beta_frontier, points_at
from plprune.optimizers import adagrad_norm_max, bounds, dec_sps, inverse_root, ngn, nsgd, sps_max

NUM_STEPS, NUM_SEEDS = 300, 4
ALPHA = 4.0


def with_measured_pair(problem):
    """The tight beta for one alpha where the sum that the losses depend on is within [-.9, .7].

    That is where the runs stay, around -.1; far away, where the losses are flat, beta nears alpha.
    """
    xs = jnp.stack([jnp.linspace(-0.9, 0.7, 6001), jnp.zeros(6001)], axis=1)
    points = jax.vmap(lambda x: points_at(problem.losses, x, problem.project(x)))(xs)
    beta = float(alpha_beta_frontier(*points).beta(ALPHA))
    return problem._replace(pair=Pair(ALPHA, beta))


@pytest.fixture(scope="module")
def cases():
    """An interpolated and a nearly interpolated problem."""
    return {
        "interpolated": problems.interpolated(8, 4, key=jax.random.key(5)),
        "nearly": with_measured_pair(problems.shared_line(np.linspace(0, 0.2, 5), 2)),
    }


def run(problem, tx):
    """f - f*, distance to S and gradient norm of each step, [seed, step]; one f_i per step."""
    dimension, scale = (4, 0.7) if problem.minimum == 0 else (2, 0.15)

    def seed(key):
        start = scale * jax.random.normal(jax.random.fold_in(key, 0), (dimension,))

        def step(carry, key):
            x, state = carry
            i = jax.random.randint(key, (), 0, len(problem.minima))
            value, gradient = jax.value_and_grad(lambda x: problem.losses(x)[i])(x)
            updates, state = tx.update(gradient, state, x, value=value)
            seen = (
                jnp.mean(problem.losses(x)) - problem.minimum,
                jnp.linalg.norm(x - problem.project(x)),
                jnp.linalg.norm(gradient),
            )
            return (optax.apply_updates(x, updates), state), seen

        return jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, NUM_STEPS))[1]

    return jax.jit(jax.vmap(seed))(jax.random.split(jax.random.key(0), NUM_SEEDS))


def common(problem, distances, largest=False):
    distance = distances.max() if largest else distances[:, 0].max()
    return {
        "smoothness": problem.smoothness,
        "squared_distance": float(distance) ** 2,
        "noise": problem.noise,
    }


def sgd(problem):
    pair = problem.pair
    step = (pair.alpha - pair.beta) / (2 * problem.smoothness)

    def bound(_, distances):
        return bounds.sgd_bound(NUM_STEPS, pair, step_size=step, **common(problem, distances))

    return optax.sgd(step), bound


def sgd_decreasing(problem):
    pair = problem.pair
    step = (pair.alpha - pair.beta) / (2 * problem.smoothness)

    def bound(_, distances):
        return bounds.sgd_decreasing_bound(
            NUM_STEPS, pair, step_size=step, **common(problem, distances)
        )

    return optax.sgd(inverse_root(step)), bound


def polyak(problem):
    pair = problem.pair
    setting = {"c": 1 / (pair.alpha - pair.beta), "max_step_size": 2.0}

    def bound(_, distances):
        return bounds.sps_max_bound(NUM_STEPS, pair, **setting, **common(problem, distances))

    return sps_max(**setting), bound


def decreasing_polyak(problem):
    pair = problem.pair
    setting = {"c": 1 / (pair.alpha - pair.beta), "max_step_size": 2.0}

    def bound(_, distances):
        return bounds.dec_sps_bound(NUM_STEPS, pair, **setting, **common(problem, distances, True))

    return dec_sps(**setting), bound


def gauss_newton(problem):
    pair = problem.pair

    def bound(_, distances):
        return bounds.ngn_bound(
            NUM_STEPS, pair, step_size=0.5, mean_minimum=float(problem.minima.mean()),
            **common(problem, distances),
        )  # fmt: skip

    return ngn(0.5), bound


def decreasing_gauss_newton(problem):
    pair = problem.pair
    first = 0.5 * (pair.alpha - pair.beta) / problem.smoothness
    steps = first / np.sqrt(np.arange(NUM_STEPS) + 1)

    def bound(_, distances):
        return bounds.ngn_decreasing_bound(steps, pair, **common(problem, distances))

    return ngn(inverse_root(first)), bound


def adagrad(problem):
    def bound(gradients, distances):
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


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_bounds_hold_for_every_seed(cases, method):
    for name, problem in cases.items():
        tx, bound = method(problem)
        excess, distances, gradients = run(problem, tx)
        if name == "nearly":
            assert distances.max() * np.sqrt(2) < 0.8  # Within the region of the pair.
        limit = bound(gradients, distances)
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
