# SPDX-License-Identifier: Apache-2.0
"""Running statistics against means over batches by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plprune.compilation import cache
from plprune.functional import Functional, functional
from plprune.models import CNN
from plprune.recalibration import recalibrate

pytestmark = pytest.mark.usefixtures("models_broadcast")
KEY = jax.random.key(0)
BATCHES = [
    jax.random.normal(jax.random.fold_in(KEY, n), (size, 3)) for n, size in enumerate((8, 4))
]
SIZES = np.array([8, 4])


def model(train, state):
    """Of a training call and a state alone."""
    params: dict[str, Any] = {}
    return Functional(params, state, lambda *args: args[-1], train, lambda *_: None)


def averaged(batches, statistic):
    return sum(n * statistic(np.asarray(b)) for n, b in zip(SIZES, batches, strict=True)) / 12


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("start", [0.0, 7.0])
def test_statistics_become_the_means_of_the_batches_whatever_they_were(momentum, start):
    def train(params, state, inputs, *, key):
        del params, key
        new = {"mean": inputs.mean(0), "var": inputs.var(0)}
        return inputs, jax.tree.map(lambda s, b: momentum * s + (1 - momentum) * b, state, new)

    state = {"mean": jnp.full(3, start), "var": jnp.full(3, start + 1)}
    new = recalibrate(model(train, state), BATCHES, key=KEY)
    np.testing.assert_allclose(new["mean"], averaged(BATCHES, lambda b: b.mean(0)), rtol=1e-9)
    np.testing.assert_allclose(new["var"], averaged(BATCHES, lambda b: b.var(0)), rtol=1e-9)


def test_an_average_that_is_corrected_for_its_start_is_one_too():
    """As Haiku keeps it: a count, a hidden average, and that average without its start."""
    decay = 0.9

    def train(params, state, inputs, *, key):
        del params, key
        count = state["counter"] + 1
        hidden = decay * state["hidden"] + (1 - decay) * inputs.mean(0)
        return inputs, {
            "counter": count, "hidden": hidden, "average": hidden / (1 - decay**count),
        }  # fmt: skip

    state = {"counter": jnp.array(3), "hidden": jnp.ones(3), "average": jnp.ones(3)}
    own = model(train, state)
    new = recalibrate(own, BATCHES, key=KEY)
    mean = averaged(BATCHES, lambda b: b.mean(0))
    np.testing.assert_allclose(new["average"], mean, rtol=1e-6)
    after = train({}, new, BATCHES[0], key=KEY)[1]["average"]  # The next step goes on from there.
    np.testing.assert_allclose(after, 0.9 * mean + 0.1 * BATCHES[0].mean(0), rtol=1e-6)


def test_other_state_stays_and_is_used_as_it_is():
    """A frozen statistic, an iterated direction and a count; the moving one reads the frozen."""

    def train(params, state, inputs, *, key):
        del params
        seen = (inputs - state["frozen"]) * state["direction"]
        direction = state["direction"] + 1
        return seen, {
            "frozen": state["frozen"],
            "direction": direction / jnp.linalg.norm(direction),
            "count": state["count"] + 1,
            "mean": 0.9 * state["mean"] + 0.1 * seen.mean(0),
            "key": jax.random.fold_in(key, 1),
        }

    state = {
        "frozen": jnp.array([1.0, 2, 3]), "direction": jnp.array([1.0, 0, 2]),
        "count": jnp.array(5), "mean": jnp.zeros(3), "key": KEY,
    }  # fmt: skip
    new = recalibrate(model(train, state), BATCHES, key=KEY)
    for name in ("frozen", "direction", "count", "key"):
        assert jnp.array_equal(new[name], state[name])
    mean = averaged(BATCHES, lambda b: b.mean(0) - np.array([1.0, 2, 3]))
    np.testing.assert_allclose(new["mean"], mean * np.array([1.0, 0, 2]), rtol=1e-9)


def test_a_convolutional_networks_statistics_are_those_of_what_reaches_each_layer(monkeypatch):
    net = functional(CNN((4, 4, 1), (3, 2), out_features=2, rngs=nnx.Rngs(0)))
    images = [jax.random.normal(KEY, (6, 4, 4, 1), jnp.float32)]
    new = recalibrate(net, images, key=KEY)
    trained, evaluated = jax.jit(
        lambda state: (
            net.train(net.params, net.state, images[0], key=KEY)[0],
            net.apply(net.params, state, images[0]),
        )
    )(new)
    np.testing.assert_allclose(trained, evaluated, rtol=1e-3, atol=1e-4)
    compiled = []
    monkeypatch.setattr(cache, "_compiled", lambda *args: compiled.append(args))
    again = recalibrate(net._replace(state=new), iter(images), key=KEY)
    assert not compiled  # The program serves other values.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), again, new)
    assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, net.state)


def test_what_cannot_be_recalibrated_is_refused():
    def train(params, state, inputs, *, key):
        del params, key
        return inputs, state

    with pytest.raises(ValueError, match="batches must be an iterable of batches"):
        recalibrate(model(train, {}), BATCHES[0], key=KEY)
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        recalibrate(model(train, {}), [], key=KEY)
    with pytest.raises(ValueError, match="model must have running statistics"):
        recalibrate(model(train, {"mean": jnp.zeros(3)}), BATCHES, key=KEY)
