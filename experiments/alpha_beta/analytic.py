"""Surfaces and conditions of the analytic examples (figure 3, table 1), and half-space learning."""

import jax
import jax.numpy as jnp
import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.measures import measured
from experiments.alpha_beta.problems import EXAMPLES, Problem
from experiments.progress import Progress
from plprune.conditions import (
    aiming_cosine,
    aiming_ratio,
    alpha_beta_frontier,
    pl_ratio,
    points_at,
    quasar_ratio,
    recording,
    replay,
    smallest_pair,
)
from plprune.data import minibatches
from plprune.training import make_step, run_minibatches, start

SIDE = 4.0  # Points of the table are within this of the middle of the minimisers, per coordinate.
HALF_SPACE = {"dimension": 20, "per_class": 20, "penalty": 1e-5, "rate": 0.25}


def examples(config: Config, progress: Progress):
    """Surfaces, and the constant of every condition over random points, per example."""
    found = {}
    with progress.task("examples", total=len(EXAMPLES)) as task, jax.enable_x64(True):
        for name, build in EXAMPLES.items():
            found[name] = [
                progress.once(f"{name}/{seed}", lambda b=build, s=seed: _example(config, b(), s))
                for seed in _seeds(config)
            ]
            task.advance(1)
    return found


def halfspace(config: Config, progress: Progress):
    """A linear classifier with the sigmoid loss, one example a step."""
    found = []
    with progress.task("half-space learning", total=config.seeds) as task, jax.enable_x64(True):
        for seed in _seeds(config):
            found.append(progress.once(f"{seed}", lambda s=seed: _halfspace(config, s)))
            task.advance(1)
    return {"halfspace": found}


def _seeds(config):
    return range(config.seed, config.seed + config.seeds)


def _example(config, problem: Problem, seed):
    middle = _middle(problem)
    key = jax.random.key(seed)
    shift = jax.random.uniform(key, (config.samples, 2), minval=-SIDE, maxval=SIDE)
    where = jax.jit(jax.vmap(lambda x: _at(problem, x)))
    points, whole = where(middle + shift)
    pair = smallest_pair(alpha_beta_frontier(*points))
    axis = jnp.linspace(-SIDE, SIDE, config.grid)
    grid = jnp.stack(jnp.meshgrid(middle[0] + axis, middle[1] + axis), axis=-1).reshape(-1, 2)
    return {
        "smallest_alpha": pair.alpha,
        "smallest_beta": pair.beta,
        "min_angle": jnp.min(aiming_cosine(whole["inner"], whole["norm"], whole["distance"])),
        "pl_constant": jnp.min(pl_ratio(whole["norm"], whole["gap"])),
        "aiming_constant": jnp.min(aiming_ratio(whole["inner"], whole["value"])),
        "quasar_constant": jnp.min(quasar_ratio(whole["inner"], whole["gap"])),
        "minimum": problem.minimum,
        "interpolation_gap": problem.noise,
        "surface": jax.jit(jax.vmap(lambda x: jnp.mean(problem.losses(x))))(grid),
        "surface_points": grid.ravel(),
    }


def _middle(problem):
    ends = jnp.stack([problem.project(jnp.full(2, x)) for x in (-9.0, 9.0)])
    return jnp.mean(ends, axis=0)


def _at(problem, x):
    """Points of every f_i, and the whole f's numbers."""
    projection = problem.project(x)
    points = points_at(problem.losses, x, projection, jnp.asarray(problem.minima))
    value, gradient = jax.value_and_grad(lambda x: jnp.mean(problem.losses(x)))(x)
    whole = {
        "inner": jnp.dot(gradient, x - projection),
        "value": value,
        "gap": value - problem.minimum,
        "norm": jnp.linalg.norm(gradient),
        "distance": jnp.linalg.norm(x - projection),
    }
    return points, whole


def _halfspace(config, seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    data = _two_classes(keys[0])
    penalty, steps = HALF_SPACE["penalty"], config.halfspace_steps
    optimizer = recording(optax.sgd(HALF_SPACE["rate"]), steps)

    def loss(outputs, labels):
        margins, norms = outputs[:, 0], outputs[:, 1]
        return jax.nn.sigmoid(-labels * margins) + penalty / 2 * norms

    def train(params, state, inputs, *, key):
        del key
        norm = jnp.broadcast_to(jnp.sum(jnp.square(params)), len(inputs))
        return jnp.stack([inputs @ params, norm], axis=1), state

    step = make_step(train, loss, optimizer)
    size = len(data[1])
    first = jax.random.normal(keys[1], (HALF_SPACE["dimension"],))
    indices = minibatches(size, 1, steps, key=keys[2])

    @jax.jit
    def run(reference, data, indices):
        state = start(first, {}, optimizer, key=keys[2])
        last, _ = run_minibatches(step, state, data, indices, reference=reference)
        return last.params, last.opt_state.records

    found = replay(lambda reference: run(reference, data, indices), first)
    outputs = train(found.reference, {}, data[0], key=None)[0]
    return measured(config, found, loss(outputs, data[1]), indices)


def _two_classes(key):
    """Inputs and signs: normal clouds of variance 2 around opposite random centres."""
    centre_key, noise_key = jax.random.split(key)
    size, dimension = HALF_SPACE["per_class"], HALF_SPACE["dimension"]
    labels = jnp.repeat(jnp.array([1.0, -1.0]), size)
    centre = jax.random.normal(centre_key, (dimension,))
    centre = centre / jnp.linalg.norm(centre)
    noise = jnp.sqrt(2.0) * jax.random.normal(noise_key, (2 * size, dimension))
    return labels[:, None] * centre[None, :] + noise, labels
