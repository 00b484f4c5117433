# SPDX-License-Identifier: Apache-2.0
"""What is compiled for a network: at the paper's size, and a switch transformer's loss."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.pl_pruning.config import PRESETS
from experiments.pl_pruning.networks import Shape
from experiments.pl_pruning.presets import PAPER
from experiments.pl_pruning.settings import network
from experiments.pl_pruning.trainer import State, _balanced, _packed, optimizer, trainer_of
from plprune.losses import cross_entropy
from plprune.models.switch import Balanced
from plprune.training import start

pytestmark = pytest.mark.usefixtures("models_broadcast")

IMAGES = Shape((32, 32, 3), np.dtype("float32"), 10)
GRAY = Shape((28, 28, 1), np.dtype("float32"), 10)
TEXT = Shape((128,), np.dtype("int32"), 257)
SIZES = {"features": 8, "layers": 1, "heads": 2, "width": 8}


@pytest.mark.parametrize("name", PAPER)
def test_networks_of_the_papers_size_train(name):
    """Shapes alone: nothing is allocated or compiled. Two blocks of a transformer stand for all."""
    config = PAPER[name]
    sizes = dict(config.network.sizes)
    if "layers" in sizes:
        shallow = tuple((sizes | {"layers": 2}).items())
        config = replace(config, network=replace(config.network, sizes=shallow))
    kinds = {"mlp": GRAY, "cnn": GRAY, "encoder": TEXT, "switch": TEXT}
    shape = kinds.get(config.network.kind, IMAGES)
    regime = config.regimes[-1]
    trainer = trainer_of(config.network, regime, shape, None)
    model = trainer.net.model
    inputs = jax.ShapeDtypeStruct((2, *shape.inputs), shape.dtype)
    square = regime.loss == "square"
    labels = (10,) if square else shape.inputs if shape is TEXT else ()
    targets = jax.ShapeDtypeStruct((2, *labels), np.float32 if square else np.int32)

    def run(params, state, inputs, targets):
        first = start(
            params, State(state, {}), optimizer(regime, 0.0), key=jax.random.key(0)
        )  # fmt: skip
        indices = jnp.zeros((3, 2), jnp.int32)
        return trainer.stretch(first, (inputs, targets), indices, rate=0.1)

    last, info = jax.eval_shape(run, model.params, model.state, inputs, targets)
    assert info.loss.shape == (3,)
    assert jax.tree.map(jnp.shape, last.params) == jax.tree.map(jnp.shape, model.params)


def test_a_switch_transformer_trains_on_the_loss_and_a_hundredth_of_the_imbalance():
    draws = np.random.default_rng(0)
    outputs, imbalance = jnp.asarray(draws.normal(size=(3, 4, 5))), jnp.asarray([1.0, 2.0, 4.0])
    tokens = jnp.asarray(draws.integers(0, 5, (3, 4)))
    found = _balanced(cross_entropy)(_packed(Balanced(outputs, imbalance)), tokens)
    np.testing.assert_allclose(found, cross_entropy(outputs, tokens) + 0.01 * imbalance)
    own = PRESETS["shakespeare_switch"]
    small = network("switch", experts=2, exclude=("*.query", "*.value"), **SIZES)
    trainer = trainer_of(small, own.regimes[0], Shape((4,), np.dtype("int32"), 6), None)
    arguments = trainer.net.model.params, State(trainer.net.model.state, {}), jnp.zeros((2, 4), int)
    trained, _ = jax.eval_shape(lambda *a: trainer.train(*a, key=jax.random.key(0)), *arguments)
    assert trained.shape == (2, 4, 7)


REGIME = PRESETS["quick"].regimes[0]


@pytest.mark.parametrize("name", ["adam", "adamw", "lbfgs"])
def test_optimisers_of_a_regime_are_those_of_optax(name):
    rule = optimizer(replace(REGIME, optimizer=name), 0.1)
    known = optax.lbfgs(0.1, linesearch=None) if name == "lbfgs" else getattr(optax, name)(0.1)
    params = {"a": jnp.asarray([1.0, 2.0])}
    mine, other = rule.init(params), known.init(params)
    for slope in (3.0, -1.0):
        gradients = {"a": jnp.asarray([slope, 1.0])}
        found, mine = rule.update(gradients, mine, params)
        expected, other = known.update(gradients, other, params)
        np.testing.assert_array_equal(found["a"], expected["a"])


def test_a_rate_rises_over_the_warm_up():
    rule = optimizer(replace(REGIME, warm_up=4), 0.8)
    params, steps = jnp.zeros(1), []
    state = rule.init(params)
    for _ in range(6):
        update, state = rule.update(jnp.ones(1), state, params)
        steps.append(-float(update[0]))
    np.testing.assert_allclose(steps, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rtol=1e-6)
