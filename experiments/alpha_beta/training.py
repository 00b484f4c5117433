# SPDX-License-Identifier: Apache-2.0
"""A model trained twice from one seed, the second time recorded against its own last iterate."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, PyTree

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.measures import measured
from experiments.progress import Progress
from experiments.results import each_seed
from experiments.sharding import replicate, spread, whole
from plprune.conditions import Records, batch_losses, recording, replay
from plprune.data import minibatches
from plprune.functional import functional
from plprune.losses import cross_entropy
from plprune.training import (
    TrainState,
    compile_minibatches,
    make_step,
    minibatch_losses,
    start,
)
from plprune.types import Params

EVALUATED = 1024  # Examples at a time at the last iterate.


class Training(NamedTuple):
    """One setting of one figure, for all seeds; BatchNorm and dropout are allowed."""

    build: Callable[[nnx.Rngs], nnx.Module]
    optimizer: optax.GradientTransformation
    data: tuple[Any, Any]  # Inputs and labels.
    batch: int
    steps: int


class Program(NamedTuple):
    """A training as functions of arrays, whose programs serve all seeds."""

    initial: Callable[[Array], tuple[Params, PyTree]]  # key -> (params, state)
    begin: Callable[..., TrainState]  # (params, state, key) -> before the first step
    stretch: Callable[..., tuple[TrainState, None]]
    # (train_state, data, indices, *, reference) -> after those steps
    reference_values: Callable[..., Array]
    # (params, state, data, indices, key) -> the loss of every step's minibatch, as in the step

    def run(self, params, state, reference, data, indices, key) -> tuple[Params, Records]:
        """The last iterate, and the records, of all steps at once."""
        first = self.begin(params, state, key)
        last, _ = self.stretch(first, data, indices, reference=reference)
        return last.params, last.opt_state.records


def program(training: Training) -> Program:
    """The compiled functions of a training; nothing is computed yet."""
    # Shapes are enough to take the model apart.
    shapes = nnx.eval_shape(lambda: training.build(nnx.Rngs(0)))
    model = functional(shapes)
    optimizer = recording(training.optimizer, training.steps)
    step = make_step(model.train, cross_entropy, optimizer)

    def initial(key):
        built = functional(training.build(nnx.Rngs(key)))
        return built.params, built.state

    def begin(params, state, key):
        return start(params, state, optimizer, key=key)

    def last_only(pair):
        return whole(pair[0]), None

    def reference_values(params, state, data, indices, key):
        found = minibatch_losses(model.train, cross_entropy, params, state, data, indices, key=key)
        return whole(found)

    stretch = compile_minibatches(step, model.params, finish=last_only)
    values = _means_of_examples(model) if examples_apart(shapes) else jax.jit(reference_values)
    # Outside of jit one program draws weights of every shape; inside, each draw has a copy of it.
    return Program(initial, jax.jit(begin), stretch, values)


def examples_apart(module: nnx.Module) -> bool:
    """Whether each example's loss is its own: no statistics of a minibatch, no random numbers."""
    return not jax.tree.leaves(nnx.state(module, nnx.Not(nnx.Param)))


def _means_of_examples(model):
    """Reference values from each example's loss, evaluated once, not once an epoch."""

    @jax.jit
    def losses(params, inputs, labels):
        return cross_entropy(model.apply(params, {}, inputs), labels)

    @jax.jit
    def means(parts, indices):
        return whole(batch_losses(jnp.concatenate(parts), indices))

    def reference_values(params, state, data, indices, key):
        del state, key
        parts = range(0, len(data[1]), EVALUATED)
        found = [losses(params, *(a[i : i + EVALUATED] for a in data)) for i in parts]
        return means(found, indices)

    return reference_values


def runner(
    config: Config, training: Training, name: str, progress: Progress
) -> Callable[[int], dict[str, np.ndarray]]:
    """Seed -> numbers and curves; `name` is the method's, for the checkpoints."""
    compiled, data = program(training), replicate(training.data)

    def one(seed: int) -> dict[str, np.ndarray]:
        key = jax.random.key(seed)
        drawn = minibatches(len(data[1]), training.batch, training.steps, key=key)
        indices = spread(drawn, axis=1)  # Each device takes its share of every minibatch.
        params, state = compiled.initial(key)
        passes = itertools.count(1)

        def run(reference) -> tuple[Params, Records]:
            first, number = compiled.begin(params, state, key), next(passes)

            def stretch(now, part):
                now, _ = compiled.stretch(now, data, part, reference=reference)
                # The second pass sees the losses of the first.
                return now, _latest(now, len(part)) if number == 1 else None

            loop = f"{name}/{seed}, pass {number}"
            last, _ = progress.carry(loop, first, indices, stretch, task=task, may_diverge=True)
            return last.params, last.opt_state.records

        with progress.task(f"{name}, seed {seed}", total=2 * training.steps) as task:
            found = replay(run, params)
        at_end = compiled.reference_values(found.reference, state, data, indices, key)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        return measured(config, found, at_end) | {"parameters": parameters}

    return one


def _latest(now: TrainState, steps: int) -> dict[str, Array]:
    """The losses of the last so many steps."""
    done = int(now.step)
    return {"loss": np.asarray(now.opt_state.records.value)[done - steps : done]}


def runs(config: Config, progress: Progress, settings: Mapping[str, Callable[[], Training]]):
    """Every setting on every seed: {method: [numbers and curves of each seed]}."""
    found = {}
    for name, training in settings.items():
        one = functools.cache(
            lambda training=training, name=name: runner(config, training(), name, progress)
        )
        found[name] = each_seed(config, progress, name, lambda seed, one=one: one()(seed))
    return found
