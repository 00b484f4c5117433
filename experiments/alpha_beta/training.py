"""A model trained twice from one seed, the second time recorded against its own last iterate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.measures import measured
from plprune.conditions import recording, replay
from plprune.data import minibatches
from plprune.functional import functional
from plprune.losses import cross_entropy
from plprune.training import make_step, run_minibatches, start

PART = 512  # Examples evaluated at a time at the end.


class Training(NamedTuple):
    """One setting of one figure, for all seeds."""

    build: Callable[
        [nnx.Rngs], nnx.Module
    ]  # Without dropout and BatchNorm: f_i is of its examples.
    optimizer: optax.GradientTransformation
    data: tuple[Any, Any]  # Inputs and labels.
    batch: int
    steps: int


def runner(config: Config, training: Training) -> Callable[[int], dict[str, np.ndarray]]:
    """Seed -> numbers and curves; compiled once for all seeds."""
    # Shapes are enough to take the model apart.
    model = functional(nnx.eval_shape(lambda: training.build(nnx.Rngs(0))))
    if jax.tree.leaves(model.state):
        raise ValueError("build must give a model without state, or a batch's loss is not a mean.")
    optimizer = recording(training.optimizer, training.steps)
    step = make_step(model.train, cross_entropy, optimizer)

    @jax.jit
    def initial(key):
        return functional(training.build(nnx.Rngs(key))).params

    @jax.jit
    def run(first, reference, data, indices):
        last, _ = run_minibatches(step, first, data, indices, reference=reference)
        return last.params, last.opt_state.records

    @jax.jit
    def losses(params, part):
        return cross_entropy(model.apply(params, {}, part[0]), part[1])

    def one(seed: int) -> dict[str, np.ndarray]:
        key = jax.random.key(seed)
        count = len(training.data[1])
        indices = minibatches(count, training.batch, training.steps, key=key)
        params = initial(key)
        first = start(params, {}, optimizer, key=key)
        found = replay(lambda reference: run(first, reference, training.data, indices), params)
        at_end = _of_all(losses, found.reference, training.data)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        return measured(config, found, at_end, indices) | {"parameters": parameters}

    return one


def _of_all(losses, params, data) -> Array:
    count = len(data[1])
    parts = [jax.tree.map(lambda a, i=i: a[i : i + PART], data) for i in range(0, count, PART)]
    return np.concatenate([losses(params, part) for part in parts])
