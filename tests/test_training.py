"""A training step against its closed form, and stretches of steps that replay exactly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plprune.data import minibatches
from plprune.losses import squared_error
from plprune.training import make_step, run_full_batch, run_minibatches, start

pytestmark = pytest.mark.usefixtures("models_broadcast")
NUM_EXAMPLES, NUM_STEPS = 12, 6


def train(params, state, inputs, *, key):
    """A linear model whose state counts its calls, with noise on the outputs by key."""
    noise = 1e-3 * jax.random.normal(key, (len(inputs), 1))
    return inputs @ params["w"] + params["b"] + noise, {"calls": state["calls"] + 1}


@pytest.fixture
def problem(key):
    keys = jax.random.split(key, 3)
    params = {"w": jax.random.normal(keys[0], (3, 1)), "b": jnp.zeros(1)}
    data = (
        jax.random.normal(keys[1], (NUM_EXAMPLES, 3)),
        jax.random.normal(keys[2], (NUM_EXAMPLES, 1)),
    )
    return params, {"calls": jnp.zeros((), jnp.int32)}, data


def test_one_step_is_gradient_descent_on_the_mean_loss(key):
    x, y, w, rate = np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]), 0.5, 0.1
    step = make_step(lambda p, s, inputs, **_: (inputs @ p, s), squared_error, optax.sgd(rate))
    first = start(jnp.array([[w]]), {}, optax.sgd(rate), key=key)
    last, info = step(first, (jnp.asarray(x), jnp.asarray(y)))
    gradient = np.mean((w * x - y) * x)
    np.testing.assert_allclose(last.params, [[w - rate * gradient]], rtol=1e-12)
    np.testing.assert_allclose(info.loss, np.mean((w * x - y) ** 2) / 2, rtol=1e-12)
    np.testing.assert_allclose(info.gradient_norm, abs(gradient), rtol=1e-12)
    assert last.step == 1


def test_scanned_steps_equal_a_loop_and_replay_bit_for_bit(problem, key):
    params, state, data = problem
    optimizer = optax.adam(0.1)
    step = make_step(train, squared_error, optimizer)
    indices = minibatches(NUM_EXAMPLES, 4, NUM_STEPS, key=key)
    run = jax.jit(lambda first: run_minibatches(step, first, data, indices))
    first = start(params, state, optimizer, key=key)
    last, infos = run(first)
    again, _ = run(first)
    chex.assert_trees_all_equal(last._replace(key=()), again._replace(key=()))
    looped = first
    for i, chosen in enumerate(indices):
        looped, info = step(looped, jax.tree.map(lambda a, c=chosen: a[c], data))
        np.testing.assert_allclose(info.loss, infos.loss[i], rtol=1e-9)
    chex.assert_trees_all_close(last.params, looped.params, rtol=1e-9)
    assert last.state["calls"] == last.step == NUM_STEPS


def test_a_run_in_two_parts_is_the_whole_run(problem, key):
    params, state, data = problem
    step = make_step(train, squared_error, optax.sgd(0.1, momentum=0.9))
    indices = minibatches(NUM_EXAMPLES, 4, NUM_STEPS, key=key)
    run = jax.jit(lambda first, part: run_minibatches(step, first, data, part)[0])
    first = start(params, state, optax.sgd(0.1, momentum=0.9), key=key)
    parts = run(run(first, indices[:3]), indices[3:])
    chex.assert_trees_all_equal(run(first, indices).params, parts.params)


def test_seeds_train_together_as_alone(problem, key):
    params, state, data = problem
    step = make_step(train, squared_error, optax.sgd(0.1))
    keys = jax.random.split(key, 3)

    def seed(key):
        scaled = jax.tree.map(lambda p: p * jax.random.normal(key), params)
        first = start(scaled, state, optax.sgd(0.1), key=key)
        return run_full_batch(step, first, data, NUM_STEPS)[0].params

    together = jax.vmap(seed)(keys)
    alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(seed, keys))
    chex.assert_trees_all_close(together, alone, rtol=1e-9)


def test_extra_keywords_and_the_loss_reach_the_optimizer(problem, key):
    params, state, data = problem

    def update(updates, opt_state, params=None, *, value, scale):
        del params
        return jax.tree.map(lambda u: scale * u, updates), opt_state + value

    optimizer = optax.GradientTransformationExtraArgs(lambda _: jnp.zeros(()), update)
    step = make_step(train, squared_error, optimizer)
    last, info = step(start(params, state, optimizer, key=key), data, scale=0.0)
    chex.assert_trees_all_equal(last.params, params)
    np.testing.assert_allclose(last.opt_state, info.loss, rtol=1e-6)


def test_compiles_once_for_stretches_of_one_length(problem, key):
    params, state, data = problem
    step = make_step(train, squared_error, optax.sgd(0.1))
    first = start(params, state, optax.sgd(0.1), key=key)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(train_state, part):
        return run_minibatches(step, train_state, data, part)[0]

    indices = minibatches(NUM_EXAMPLES, 4, NUM_STEPS, key=key)
    run(run(first, indices[:3]), indices[3:])


def test_rejects_an_empty_run(problem, key):
    params, state, data = problem
    step = make_step(train, squared_error, optax.sgd(0.1))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run_full_batch(step, start(params, state, optax.sgd(0.1), key=key), data, 0)
