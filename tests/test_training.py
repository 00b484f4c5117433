# SPDX-License-Identifier: Apache-2.0
"""A training step against its closed form, and stretches of steps that replay exactly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from plprune import training
from plprune.data import minibatches
from plprune.functional import functional
from plprune.losses import cross_entropy, squared_error
from plprune.training import (
    compile_minibatches,
    make_step,
    minibatch_losses,
    run_full_batch,
    run_minibatches,
    scans_slowly,
    start,
)

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


@pytest.mark.parametrize("slow", [False, True])
def test_compiled_stretches_scan_or_step_alike(problem, key, monkeypatch, slow):
    params, state, data = problem
    monkeypatch.setattr(training, "scans_slowly", lambda _: slow)

    def step(train_state, batch, *, rate):
        return make_step(train, squared_error, optax.sgd(rate))(train_state, batch)

    indices = minibatches(NUM_EXAMPLES, 4, NUM_STEPS, key=key)
    first = start(params, state, optax.sgd(0.0), key=key)
    expected = run_minibatches(step, first, data, indices, rate=0.1)
    run = compile_minibatches(step, params, finish=lambda pair: (pair[0], pair[1].loss))
    assert run.scans == (not slow)
    for function in (run, run.compiled(first, data, indices, rate=0.1)):
        last, losses = function(first, data, indices, rate=0.1)
        chex.assert_trees_all_close(last.params, expected[0].params, rtol=1e-9)
        chex.assert_trees_all_close(losses, expected[1].loss, rtol=1e-9)


def test_only_convolutions_on_a_cpu_are_scanned_slowly(monkeypatch):
    matrix, kernel = jnp.ones((3, 3)), jnp.ones((3, 3, 1, 2))
    assert scans_slowly({"a": matrix, "b": kernel})
    assert not scans_slowly({"a": matrix})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not scans_slowly({"b": kernel})


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


class Normalised(nnx.Module):
    """One hidden layer with BatchNorm, and dropout if asked for."""

    def __init__(self, dropout=0.0):
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(3, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.output = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, inputs):
        x = jax.nn.relu(self.norm(self.hidden(inputs)))
        return self.output(x if self.dropout is None else self.dropout(x))


def double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tree)


def numpy_loss(params, x, labels):
    """The cross-entropy of a minibatch, normalised by its own mean and variance."""
    p = jax.tree.map(np.asarray, params)
    hidden = x @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    centred = hidden - hidden.mean(0)
    normal = centred / np.sqrt((centred**2).mean(0) + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    logits = np.maximum(normal, 0) @ p["output"]["kernel"] + p["output"]["bias"]
    chosen = logits[np.arange(len(labels)), labels]
    return np.mean(np.log(np.exp(logits).sum(1)) - chosen)


@pytest.fixture(scope="module")
def classified():
    """Examples whose minibatches differ in mean and variance, and the steps' minibatches."""
    keys = jax.random.split(jax.random.key(3), 3)
    inputs = jax.random.normal(keys[0], (NUM_EXAMPLES, 3)) * jnp.arange(1.0, 13)[:, None]
    labels = jax.random.randint(keys[1], (NUM_EXAMPLES,), 0, 2)
    return (inputs, labels), minibatches(NUM_EXAMPLES, 4, 3, key=keys[2])


def test_minibatch_losses_normalise_by_the_steps_own_minibatch(classified, key):
    data, indices = classified
    model = functional(Normalised())
    params = jax.tree.map(lambda p: p + 0.1, double(model.params))
    found = minibatch_losses(
        model.train, cross_entropy, params, double(model.state), data, indices, key=key
    )
    arrays = [np.asarray(a) for a in data]
    expected = np.array([numpy_loss(params, *(a[chosen] for a in arrays)) for chosen in indices])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    evaluated = cross_entropy(model.apply(params, double(model.state), data[0]), data[1])
    assert np.abs(np.mean(evaluated[indices], axis=1) / expected - 1).min() > 1e-3


def test_minibatch_losses_at_a_steps_own_parameters_are_its_loss(classified, key):
    """BatchNorm's running statistics move and dropout draws anew at every step: neither matters."""
    data, indices = classified
    model, optimizer = functional(Normalised(dropout=0.5)), optax.sgd(0.1)
    step = make_step(model.train, cross_entropy, optimizer)
    now = start(double(model.params), double(model.state), optimizer, key=key)
    losses = jax.jit(
        lambda p: minibatch_losses(
            model.train, cross_entropy, p, double(model.state), data, indices, key=key
        )
    )
    step, seen = jax.jit(step), []
    for k, chosen in enumerate(indices):
        there = losses(now.params)
        now, info = step(now, jax.tree.map(lambda a, c=chosen: a[c], data))
        np.testing.assert_allclose(there[k], info.loss, rtol=1e-12)
        seen.append(there)
    assert np.std([s[2] for s in seen]) > 1e-3


def test_minibatch_losses_are_nan_where_the_state_matters(problem, key):
    params, state, data = problem

    def counting(params, state, inputs, *, key):
        outputs, new = train(params, state, inputs, key=key)
        return outputs * state["calls"], new

    state = jax.tree.map(lambda leaf: leaf.astype(float), state)
    indices = minibatches(NUM_EXAMPLES, 4, 2, key=key)
    found = minibatch_losses(counting, squared_error, params, state, data, indices, key=key)
    assert np.isnan(found).all()
    found = minibatch_losses(train, squared_error, params, state, data, indices, key=key)
    assert np.isfinite(found).all()


def test_examples_that_do_not_exist_are_never_other_examples(problem, key):
    params, state, data = problem
    optimizer = optax.sgd(0.1)
    step = make_step(train, squared_error, optimizer)
    first = start(params, state, optimizer, key=key)
    uneven = (data[0], data[1][:-3])
    indices = jnp.zeros((2, 4), jnp.int32)
    for run in (run_minibatches, lambda *a: compile_minibatches(step, params)(*a[1:])):
        with pytest.raises(ValueError, match=r"labels must hold as many .* inputs, 12, got 9"):
            run(step, first, uneven, indices)
    with pytest.raises(ValueError, match="labels must hold as many"):
        minibatch_losses(train, squared_error, params, state, uneven, indices, key=key)
    _, infos = run_minibatches(step, first, data, indices.at[1, 2].set(NUM_EXAMPLES))
    np.testing.assert_array_equal(np.isnan(infos.loss), [False, True])
