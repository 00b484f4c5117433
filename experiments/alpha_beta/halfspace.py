# SPDX-License-Identifier: Apache-2.0
"""Half-space learning: a linear classifier with the sigmoid loss, one example a step."""

import jax
import jax.numpy as jnp
import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.measures import SHOWN, measured
from experiments.progress import Progress
from experiments.results import each_seed
from plprune.conditions import aiming_cosine, recording, replay
from plprune.data import minibatches
from plprune.training import make_step, minibatch_losses, start

DIMENSION, PER_CLASS, PENALTY, RATE = 5, 20, 1e-5, 0.25  # The dimension is our choice.
PLATEAU = (0.45, 0.65)  # Whole losses.
START = 2.0  # Deviation of the first weights: large enough for losses that saturate.


def halfspace(config: Config, progress: Progress):
    """The smallest pair of the single examples, and the whole loss along the run (2, 9)."""
    with progress.task("half-space learning", total=config.seeds) as task, jax.enable_x64(True):
        found = each_seed(config, progress, "halfspace", _runner(config), task=task)
    return {"halfspace": found}


def _runner(config):
    steps = config.halfspace_steps
    optimizer = recording(optax.sgd(RATE), steps)
    step = make_step(_train, _loss, optimizer)

    @jax.jit
    def run(reference, first, data, indices, key):
        def body(state, chosen):
            batch = jax.tree.map(lambda a: a[chosen], data)
            return step(state, batch, reference=reference)[0], state.params

        last, path = jax.lax.scan(body, start(first, {}, optimizer, key=key), indices)
        return last.params, last.opt_state.records, path

    @jax.jit
    def along(path, end, data):
        shown = path[:: max(1, steps // SHOWN)]
        return jax.vmap(_whole, (0, None, None))(shown, end, data)

    @jax.jit
    def at_end(params, data, indices, key):
        return minibatch_losses(_train, _loss, params, {}, data, indices, key=key)

    def one(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        centre, data = _two_classes(keys[0])
        first = _wrong_side(START * jax.random.normal(keys[1], (DIMENSION,)), centre)
        indices = minibatches(2 * PER_CLASS, 1, steps, key=keys[2])
        found = replay(lambda reference: run(reference, first, data, indices, keys[2])[:2], first)
        path = run(found.reference, first, data, indices, keys[2])[2]
        values, norms, cosines = along(path, found.reference, data)
        numbers = measured(config, found, at_end(found.reference, data, indices, keys[2]))
        return (
            numbers
            | _plateau(values, norms)
            | {
                "min_angle": jnp.min(cosines),
                "whole_loss_curve": values,
                "whole_gradient_curve": norms,
                "whole_angle_curve": cosines,
                "whole_steps": jnp.arange(steps)[:: max(1, steps // SHOWN)],
            }
        )

    return one


def _train(params, state, inputs, *, key):
    del key
    norm = jnp.broadcast_to(jnp.sum(jnp.square(params)), len(inputs))
    return jnp.stack([inputs @ params, norm], axis=1), state


def _loss(outputs, labels):
    margins, norms = outputs[:, 0], outputs[:, 1]
    return jax.nn.sigmoid(-labels * margins) + PENALTY / 2 * norms


def _whole(params, end, data):
    """The mean loss, its gradient's norm, and the cosine of the gradient and the way from `end`."""

    def objective(params):
        return jnp.mean(_loss(_train(params, {}, data[0], key=None)[0], data[1]))

    value, gradient = jax.value_and_grad(objective)(params)
    norm, way = jnp.linalg.norm(gradient), params - end
    inner, distance = jnp.dot(gradient, way), jnp.linalg.norm(way)
    return value, norm, aiming_cosine(inner, norm, distance)


def _plateau(values, norms):
    """The smallest gradient where the whole loss is near .5 to .6; NaN where it never is."""
    there = (values > PLATEAU[0]) & (values < PLATEAU[1])
    smallest = jnp.where(jnp.any(there), jnp.min(jnp.where(there, norms, jnp.inf)), jnp.nan)
    return {"plateau_gradient": smallest, "plateau_share": smallest / jnp.max(norms)}


def _two_classes(key):
    """The centre of a class, and inputs and signs: normal clouds around opposite centres."""
    centre_key, noise_key = jax.random.split(key)
    labels = jnp.repeat(jnp.array([1.0, -1.0]), PER_CLASS)
    centre = jax.random.normal(centre_key, (DIMENSION,))
    centre = centre / jnp.linalg.norm(centre)
    # Of variance 2, around centres of length 1.
    noise = jnp.sqrt(2.0) * jax.random.normal(noise_key, (2 * PER_CLASS, DIMENSION))
    return centre, (labels[:, None] * centre[None, :] + noise, labels)


def _wrong_side(params, centre):
    """The weights mirrored, where need be, to a product with the centre that is not positive.

    Most examples then start misclassified, with a saturated loss: on the paper's plateau.
    """
    return params - 2 * jnp.maximum(jnp.dot(params, centre), 0) * centre
