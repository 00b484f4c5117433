# SPDX-License-Identifier: Apache-2.0
"""Surfaces and conditions of the analytic examples (figure 3, table 1)."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.problems import EXAMPLES, Problem
from experiments.progress import Progress
from experiments.results import each_seed
from plprune.conditions import (
    aiming_cosine,
    aiming_ratio,
    alpha_beta_frontier,
    pl_ratio,
    points_at,
    quasar_ratio,
    smallest_pair,
)

SIDE = 4.0  # Points are within this of the middle of the minimisers, per coordinate.


def examples(config: Config, progress: Progress):
    """The constant of every condition over random points, per example; surfaces on the plane."""
    found = {}
    with progress.task("examples", total=len(EXAMPLES)) as task, jax.enable_x64(True):
        for name, build in EXAMPLES.items():
            found[name] = each_seed(config, progress, name, _runner(config, build()))
            task.advance(1)
    return found


def _runner(config, problem: Problem):
    side = min(SIDE, problem.radius)
    middle = _middle(problem) if np.isinf(problem.radius) else None

    @jax.jit
    def sampled(key):
        keys = jax.random.split(key)
        shape = (config.samples, problem.dimension)
        shift = jax.random.uniform(keys[0], shape, minval=-side, maxval=side)
        if middle is not None:
            return jax.vmap(lambda x: _at(problem, x))(middle[None, :] + shift)
        # Within `radius` of the minimisers: a random point's minimiser, and a part of its shift.
        ends = jax.vmap(problem.project)(jax.random.normal(keys[1], shape))
        return jax.vmap(lambda x: _at(problem, x))(ends + shift / problem.dimension**0.5)

    def one(seed):
        points, whole = sampled(jax.random.key(seed))
        pair = smallest_pair(alpha_beta_frontier(*points))
        numbers = {
            "smallest_alpha": pair.alpha,
            "smallest_beta": pair.beta,
            "min_angle": jnp.min(aiming_cosine(whole["inner"], whole["norm"], whole["distance"])),
            "pl_constant": jnp.min(pl_ratio(whole["norm"], whole["gap"])),
            "aiming_constant": jnp.min(aiming_ratio(whole["inner"], whole["value"])),
            "quasar_constant": jnp.min(quasar_ratio(whole["inner"], whole["gap"])),
            "minimum": problem.minimum,
            "interpolation_gap": problem.noise,
        }
        return numbers | (_surface(config, problem, middle) if problem.dimension == 2 else {})

    return one


def _surface(config, problem, middle):
    axis = jnp.linspace(-SIDE, SIDE, config.grid)
    grid = jnp.stack(jnp.meshgrid(middle[0] + axis, middle[1] + axis), axis=-1).reshape(-1, 2)
    values = jax.jit(jax.vmap(lambda x: jnp.mean(problem.losses(x))))(grid)
    return {"surface": values, "surface_points": grid.ravel()}


def _middle(problem):
    ends = [problem.project(jnp.full(problem.dimension, x)) for x in (-9.0, 9.0)]
    return jnp.mean(jnp.stack(ends), axis=0)


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
