# SPDX-License-Identifier: Apache-2.0
"""Recorded scalars against their definitions, exact replay, and what breaks it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from devices import printed_on

from plprune.conditions import Points, batch_losses, points_at, recorded, recording, replay
from plprune.data import minibatches
from plprune.losses import squared_error
from plprune.training import make_step, run_minibatches, start

pytestmark = pytest.mark.usefixtures("models_broadcast")
NUM_EXAMPLES, NUM_STEPS = 10, 6
START = {"w": jnp.array([[1.0], [-2.0]]), "b": jnp.zeros(1)}


def predict(params, inputs):
    return inputs @ params["w"] + params["b"]


def train(params, state, inputs, *, key):
    noise = 1e-2 * jax.random.normal(key, (len(inputs), 1))  # As dropout would, from the key.
    return predict(params, inputs) + noise, state


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(1), 3)
    data = (
        jax.random.normal(keys[0], (NUM_EXAMPLES, 2)),
        jax.random.normal(keys[1], (NUM_EXAMPLES, 1)),
    )
    return data, minibatches(NUM_EXAMPLES, 3, NUM_STEPS, key=keys[2])


def runner(problem, optimizer, train=train):
    data, indices = problem
    optimizer = recording(optimizer, NUM_STEPS)
    step = make_step(train, squared_error, optimizer)
    first = start(START, {}, optimizer, key=jax.random.key(7))

    @jax.jit
    def run(reference, data, indices):
        last, _ = run_minibatches(step, first, data, indices, reference=reference)
        return last.params, last.opt_state.records

    return lambda reference: run(reference, data, indices)


def test_records_are_their_definitions(problem):
    """Looped by hand, without noise, with Adam inside."""
    data, indices = problem

    def plain(params, state, inputs, *, key):
        del key
        return predict(params, inputs), state

    found = replay(runner(problem, optax.adam(0.1), plain), START)
    params, state = START, optax.adam(0.1).init(START)
    for i, chosen in enumerate(indices):

        def loss(p, chosen=chosen):
            return jnp.mean((predict(p, data[0][chosen]) - data[1][chosen]) ** 2) / 2

        value, gradients = jax.value_and_grad(loss)(params)
        g, x, r = (
            jax.flatten_util.ravel_pytree(t)[0] for t in (gradients, params, found.reference)
        )
        expected = (g @ (x - r), value, jnp.linalg.norm(g), jnp.linalg.norm(x - r))
        np.testing.assert_allclose([line[i] for line in found.records], expected, rtol=1e-9)
        updates, state = optax.adam(0.1).update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(found.reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_a_run_with_noise_from_its_key_replays_in_every_bit(problem):
    found = replay(runner(problem, optax.sgd(0.1)), START)
    assert found.exact
    assert found.first_difference == -1


def test_a_run_that_does_not_repeat_is_reported_with_its_step(problem):
    data, indices = problem
    other = indices.at[4].set((indices[4] + 1) % NUM_EXAMPLES)
    run = runner((data, indices), optax.sgd(0.1))
    changed = runner((data, other), optax.sgd(0.1))
    calls = iter([run, changed])
    found = replay(lambda reference: next(calls)(reference), START)
    assert not found.exact
    assert found.first_difference == 4
    calls = itertools.cycle(
        [run, lambda r: (jax.tree.map(lambda p: p + 1e-15, run(r)[0]), run(r)[1])]
    )
    found = replay(lambda reference: next(calls)(reference), START)
    assert not found.exact
    assert found.first_difference == -1


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec
from plprune.conditions import recording, replay
from plprune.losses import squared_error
from plprune.training import make_step, run_full_batch, start
optimizer, key = recording(optax.sgd(.01), 40), jax.random.key(0)
step = make_step(lambda p, s, x, *, key: (x @ p, s), squared_error, optimizer)
first = jax.random.normal(key, (50, 1))
x = jax.random.normal(jax.random.key(1), (512, 50))
data = x, jnp.sin(3 * x[:, :1])
@jax.jit
def run(reference, data):
    last, _ = run_full_batch(
        step, start(first, {}, optimizer, key=key), data, 40, reference=reference)
    return last.params, last.opt_state.records
mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
two = jax.device_put(data, NamedSharding(mesh, PartitionSpec("rows")))
same = replay(lambda reference: run(reference, two), first)
assert same.exact
parts = iter([data, two])
other = replay(lambda reference: run(np.asarray(reference), next(parts)), first)
assert not other.exact and other.first_difference >= 0, other
"""


def test_a_replay_on_another_number_of_devices_is_not_exact():
    printed_on(2, SHARDED)


def test_batch_losses_and_points_of_a_run(problem):
    data, indices = problem
    found = replay(runner(problem, optax.sgd(0.1)), START)
    losses = squared_error(predict(found.reference, data[0]), data[1])
    at_end = batch_losses(losses, indices)
    np.testing.assert_allclose(at_end[2], np.mean(np.asarray(losses)[np.asarray(indices[2])]))
    points = recorded(found.records, at_end, minimum=0.01)
    np.testing.assert_array_equal(points.gap, found.records.value - at_end)
    np.testing.assert_array_equal(points.excess, found.records.value - 0.01)
    np.testing.assert_array_equal(points.inner, found.records.inner)


def test_steps_beyond_the_room_are_dropped():
    tx = recording(optax.sgd(1.0), 1)
    state = tx.init(jnp.ones(2))
    for value in (1.0, 2.0):
        _, state = tx.update(
            jnp.ones(2), state, jnp.ones(2), value=jnp.asarray(value), reference=jnp.zeros(2)
        )
    assert state.step == 2
    np.testing.assert_array_equal(state.records.value, [1.0])


def test_points_at_are_per_example_gradients_products(problem):
    data, _ = problem

    def losses(params):
        return squared_error(predict(params, data[0]), data[1])

    end = jax.tree.map(lambda p: p / 3, START)
    points = points_at(losses, START, end, jnp.full(NUM_EXAMPLES, 0.1))
    jacobian = jax.jacrev(losses)(START)
    expected = jacobian["w"][:, :, 0] @ (START["w"] - end["w"])[:, 0] + jacobian["b"][:, 0] * 0
    np.testing.assert_allclose(points.inner, expected, rtol=1e-10)
    np.testing.assert_allclose(points.gap, losses(START) - losses(end), rtol=1e-12)
    np.testing.assert_allclose(points.excess, losses(START) - 0.1, rtol=1e-12)
    assert isinstance(points, Points)


def test_refuses_what_cannot_be_recorded():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        recording(optax.sgd(0.1), 0)
    tx = recording(optax.sgd(0.1), 1)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), value=jnp.ones(()), reference=jnp.ones(1))


def test_updates_stay_the_optimisers_own_where_what_is_recorded_is_not_finite():
    optimizer = recording(optax.sgd(0.5), NUM_STEPS)
    gradients = {"w": jnp.array([[-0.0], [3.0]]), "b": jnp.ones(1)}
    extra = {"value": jnp.array(jnp.inf), "reference": jax.tree.map(lambda p: p / 0, START)}
    found, state = jax.jit(optimizer.update)(gradients, optimizer.init(START), START, **extra)
    expected, _ = optax.sgd(0.5).update(gradients, optax.sgd(0.5).init(START))
    assert jnp.isnan(state.records.inner[0])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the CPU compiler's program")
def test_recording_copies_no_parameters():
    """A copy in every step was a third of its cost."""
    optimizer = recording(optax.sgd(0.1), NUM_STEPS)
    step = make_step(linear, squared_error, optimizer)
    params = jnp.ones((37, 41))
    data, indices = (jnp.ones((8, 37)), jnp.ones((8, 41))), jnp.zeros((NUM_STEPS, 2), int)

    def run(first, reference):
        return run_minibatches(step, first, data, indices, reference=reference)[0]

    first = start(params, {}, optimizer, key=jax.random.key(0))
    program = jax.jit(run).lower(first, params).compile().as_text()
    body = program.partition(f"{loop_body(program)} (")[2].partition("\n}")[0]
    assert "f64[37,41]" in body
    assert not [line for line in body.splitlines() if "f64[37,41]{1,0} copy(" in line]


def linear(params, state, inputs, *, key):
    del key
    return inputs @ params, state


def loop_body(program):
    return program.partition("body=")[2].split(",")[0].split()[0]
