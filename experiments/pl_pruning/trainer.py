# SPDX-License-Identifier: Apache-2.0
"""What a regime trains: a network at any widths, its losses, optimiser and compiled functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pl_pruning.data import Data
from experiments.pl_pruning.networks import Counts, Net, Shape, dense, shrunk
from experiments.pl_pruning.settings import Network, Regime
from experiments.sharding import divided, whole
from plprune.data import minibatches
from plprune.losses import cross_entropy, masked_cross_entropy, risk, squared_error
from plprune.models.switch import Balanced
from plprune.training import compile_minibatches, make_step, run_full_batch

_BALANCE = 0.01  # Weight of the experts' imbalance [Fedus 2022].
_CHUNK = 500  # Examples evaluated at once; perceptrons take all.
_CALIBRATION_STEPS = 20


class State(NamedTuple):
    """What a network carries besides its parameters."""

    model: Any  # Such as BatchNorm's running statistics.
    anchor: Any  # Parameters whose outputs are subtracted in a centred regime; else empty.


class Scores(NamedTuple):
    """Mean loss, and the share of labels that have the largest output."""

    loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Trainer:
    """A network of given widths, compiled once for all seeds and methods of a regime."""

    net: Net
    regime: Regime
    chunk: int
    outputs: Callable  # (params, state, inputs), in evaluation mode.
    train: Callable  # As `outputs`, in the form that `make_step` takes.
    loss: Callable  # Per example: (outputs, targets).
    train_loss: Callable  # Of what `train` returns: with the experts' imbalance where there is one.
    mean_loss: Callable  # (params, state, inputs, targets).
    stretch: Callable  # (train_state, data, indices, *, rate) -> (train_state, infos).
    scored: Callable  # (params, state, inputs, targets) -> (mean loss, right, counted).

    def evaluate(self, params, state: State, inputs, targets, most: int = 0) -> Scores:
        """Scores over the first `most` examples, or all, a part at a time."""
        size = min(most or len(inputs), len(inputs))
        parts = [
            (len(x), *map(float, self.scored(params, state, x, y)))
            for x, y in _parts(inputs[:size], targets[:size], self.chunk)
        ]
        counts, losses, right, counted = np.asarray(parts).T
        loss = losses[0] if len(parts) == 1 else np.sum(counts * losses) / size
        return Scores(float(loss), float(np.sum(right) / np.sum(counted)))


@cache
def trainer_of(network: Network, regime: Regime, shape: Shape, counts: Counts | None) -> Trainer:
    """The functions of a network with these nodes; all of them if `counts` is None."""
    net = dense(network, shape).net if counts is None else shrunk(network, shape, counts)
    loss = loss_of(regime)
    train_loss = _balanced(loss) if network.kind == "switch" else loss
    outputs, train = _functions(net, regime)

    def mean_loss(params, state, inputs, targets):
        return risk(loss, outputs(params, state, inputs), targets)

    def scored(params, state, inputs, targets):
        found = outputs(params, state, inputs)
        labels = jnp.argmax(targets, axis=-1) if regime.loss == "square" else targets
        counted = labels != -1
        right = (jnp.argmax(found, axis=-1) == labels) & counted
        return risk(loss, found, targets), jnp.sum(right), jnp.sum(counted)

    def step(train_state, batch, *, rate):
        taken = make_step(train, train_loss, optimizer(regime, rate))
        return _until(taken, regime.target)(train_state, batch)

    chunk = 1 << 30 if network.kind == "mlp" else _CHUNK
    return Trainer(
        net, regime, chunk, outputs, train, loss, train_loss, jax.jit(mean_loss),
        stretch_of(net, regime, step), jax.jit(scored),
    )  # fmt: skip


def stretch_of(net: Net, regime: Regime, step: Callable) -> Callable:
    """Compiled steps of a regime: (train_state, data, indices, **extra) -> (train_state, infos)."""

    def full(train_state, data, indices, **extra):
        return whole(run_full_batch(step, train_state, data, len(indices), **extra))

    if is_full_batch(regime):
        return jax.jit(full)
    return compile_minibatches(step, net.model.params, finish=whole)


def _functions(net: Net, regime: Regime) -> tuple[Callable, Callable]:
    """In evaluation mode, and in the form that `make_step` takes; each device has its examples."""

    def centred(raw, state, inputs):
        return raw - net.model.apply(state.anchor, {}, inputs) if regime.centred else raw

    def outputs(params, state, inputs):
        inputs = divided(inputs)
        return centred(net.model.apply(params, state.model, inputs), state, inputs)

    def train(params, state, inputs, *, key):
        inputs = divided(inputs)
        raw, model = net.train.train(params, state.model, inputs, key=key)
        raw = _packed(raw) if isinstance(raw, Balanced) else raw
        return centred(raw, state, inputs), state._replace(model=model)

    return outputs, train


def loss_of(regime: Regime) -> Callable:
    """Per-example losses of outputs."""
    return {
        "square": squared_error,
        "cross_entropy": cross_entropy,
        "masked_tokens": masked_cross_entropy,
        "next_token": cross_entropy,
    }[regime.loss]


def _packed(balanced: Balanced) -> jax.Array:
    """Logits with each example's imbalance as one more column: losses take one array."""
    column = jnp.broadcast_to(balanced.imbalance[:, None, None], (*balanced.outputs.shape[:2], 1))
    return jnp.concatenate([balanced.outputs, column], axis=-1)


def _balanced(loss):
    def total(packed, targets):
        return loss(packed[..., :-1], targets) + _BALANCE * packed[:, 0, -1]

    return total


def optimizer(regime: Regime, rate) -> optax.GradientTransformation:
    """The optimiser of a regime; its states have the same structure whatever the rate."""
    if regime.decay == "cosine":
        whole = optax.cosine_decay_schedule(1.0, regime.max_steps)
        rate = (lambda peak: lambda step: peak * whole(step))(rate)
    elif regime.warm_up:
        rate = (lambda peak: lambda step: peak * jnp.minimum(1.0, (step + 1) / regime.warm_up))(
            rate
        )
    if regime.optimizer == "lbfgs":  # Without a line search, whose evaluations are no steps.
        return optax.lbfgs(rate, linesearch=None)
    if regime.optimizer in ("adam", "adamw"):
        return {"adam": optax.adam, "adamw": optax.adamw}[regime.optimizer](rate)
    return optax.sgd(rate, momentum=0.9 if regime.optimizer == "momentum" else None)


def is_full_batch(regime: Regime) -> bool:
    """Whether every step sees all training examples, in their order."""
    return regime.batch_size == regime.train_examples


def indices_of(regime: Regime, data: Data, key: jax.Array) -> jax.Array:
    """Examples of each step; a full batch needs their number only."""
    if is_full_batch(regime):
        return jnp.zeros((regime.most_steps, 0), jnp.int32)
    return minibatches(len(data.inputs), regime.batch_size, regime.most_steps, key=key)


def calibrated(trainer: Trainer, params: Any, state: Any, data: Data) -> Any:
    """The model's state after some batches in training mode; the same where there is none.

    Running statistics start at zero and one, and after pruning they are those of a wider network:
    what is measured in evaluation mode would be another function than the one that trains.
    """
    if not jax.tree.leaves(state):
        return state
    size = trainer.regime.batch_size
    count = min(_CALIBRATION_STEPS, len(data.inputs) // size)
    batches = data.inputs[: count * size].reshape(count, size, *data.inputs.shape[1:])
    return _calibration(trainer)(params, state, batches)


@cache
def _calibration(trainer):
    def run(params, state, batches):
        def body(state, batch):
            _, new = trainer.net.model.train(params, state, batch, key=jax.random.key(0))
            return new, None

        return jax.lax.scan(body, state, batches)[0]

    return jax.jit(run)


def _parts(inputs, targets, chunk) -> Iterator:
    for start in range(0, len(inputs), chunk):
        yield inputs[start : start + chunk], targets[start : start + chunk]


def _until(step, target):
    """`step` that stands still once the loss has reached a positive target."""
    if target == 0:
        return step

    def stopping(train_state, batch, **extra):
        moved, info = step(train_state, batch, **extra)
        done = info.loss <= target
        kept = optax.tree.where(done, train_state._replace(key=()), moved._replace(key=()))
        return kept._replace(key=train_state.key), info

    return stopping
