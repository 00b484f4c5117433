"""What a regime trains: the data, the network at any widths, and its compiled functions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.pl_pruning.config import Config, Regime
from plprune.data import Dataset, check, load, standardization, standardize
from plprune.functional import Functional, functional
from plprune.losses import accuracy, cross_entropy, risk, squared_error
from plprune.models import MLP
from plprune.training import make_step, run_full_batch, run_minibatches

HELD_OUT = 64  # Test examples on which kernels are measured.


class Data(NamedTuple):
    """The arrays of one regime and seed."""

    inputs: jax.Array  # [n, ...], the training examples.
    targets: jax.Array  # Labels [n], or one-hot rows less .1 for the square loss.
    test_inputs: jax.Array
    test_labels: jax.Array


@dataclass(frozen=True, eq=False)
class Trainer:
    """A network of given widths, compiled once for all seeds and methods of a regime."""

    model: Functional  # Its own parameters are not used.
    apply: Callable  # (params, state, inputs) -> outputs.
    anchored: Callable  # params -> state with which training starts there.
    train: Callable  # As `apply`, in the form that `make_step` takes.
    per_example: Callable  # (outputs, targets) -> losses.
    loss: Callable  # (params, state, inputs, targets) -> mean loss.
    accuracy: Callable  # (params, state, inputs, labels).
    stretch: Callable  # (train_state, data, indices, rate) -> (train_state, infos).


def load_splits(config: Config) -> tuple[Dataset, Dataset]:
    """The training and the test split, checked, standardised by the training split alone."""
    train, test = (load(config.dataset, split=split) for split in ("train", "test"))
    for part in (train, test):
        check(part)
    largest = max(regime.train_examples for regime in config.regimes)
    if largest > len(train.labels):
        raise ValueError(
            f"train_examples must be at most the {len(train.labels)} of {config.dataset}, "
            f"got {largest}."
        )
    statistics = standardization(train)
    if config.standardise:
        train, test = standardize(train, statistics), standardize(test, statistics)
    return train, test


def regime_data(splits: tuple[Dataset, Dataset], regime: Regime, key: jax.Array) -> Data:
    """The regime's training examples, drawn by `key`, and the test examples: the split's first."""
    train, test = splits
    order = np.asarray(jax.random.permutation(key, len(train.labels)))
    chosen, rest = order[: regime.train_examples], order[regime.train_examples :]
    if not regime.tests_on_rest:
        rest = rest[:0]
    labels = jnp.asarray(train.labels[chosen], jnp.int32)
    square = regime.loss == "square"
    targets = jax.nn.one_hot(labels, train.num_classes) - 0.1 if square else labels
    return Data(
        jnp.asarray(train.images[chosen]),
        targets,
        jnp.asarray(np.concatenate([test.images, train.images[rest]])),
        jnp.asarray(np.concatenate([test.labels, train.labels[rest]]), jnp.int32),
    )


def initial(config: Config, splits: tuple[Dataset, Dataset], key: jax.Array) -> Any:
    """Parameters of the dense network, the same for all methods of a seed."""
    in_features = int(np.prod(splits[0].images.shape[1:]))
    model = MLP(
        in_features,
        config.widths,
        splits[0].num_classes,
        activation=config.activation,
        rngs=nnx.Rngs(key),
    )
    return functional(model).params


@cache
def _network(activation: str, in_features: int, out_features: int, widths) -> Functional:
    """One object for all regimes, so that what is compiled for its `apply` serves them all."""
    return functional(
        MLP(in_features, widths, out_features, activation=activation, rngs=nnx.Rngs(0))
    )


@cache
def trainer(
    activation: str, regime: Regime, in_features: int, out_features: int, widths: tuple[int, ...]
) -> Trainer:
    """The functions of a network with these widths, which may be the shrunk ones."""
    model = _network(activation, in_features, out_features, widths)
    per_example = squared_error if regime.loss == "square" else cross_entropy

    def outputs(params, state, inputs):
        raw = model.apply(params, {}, inputs)
        return raw - model.apply(state, {}, inputs) if regime.centred else raw

    def loss(params, state, inputs, targets):
        return risk(per_example, outputs(params, state, inputs), targets)

    def train(params, state, inputs, *, key):
        del key
        return outputs(params, state, inputs), state

    def stretch(train_state, data, indices, rate):
        step = _until(make_step(train, per_example, optax.sgd(rate)), regime.target)
        if is_full_batch(regime):
            return run_full_batch(step, train_state, data, len(indices))
        return run_minibatches(step, train_state, data, indices)

    return Trainer(
        model,
        outputs,
        lambda params: params if regime.centred else {},
        train,
        per_example,
        jax.jit(loss),
        jax.jit(lambda p, s, x, y: accuracy(outputs(p, s, x), y)),
        jax.jit(stretch),
    )


def is_full_batch(regime: Regime) -> bool:
    """Whether every step sees all training examples, in their order."""
    return regime.batch_size == regime.train_examples


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


def trainer_of(config: Config, regime: Regime, params: Any) -> Trainer:
    """The trainer for parameters of any widths."""
    layers = [params[f"hidden_{i}"]["kernel"] for i in range(len(config.widths))]
    widths = tuple(layer.shape[1] for layer in layers)
    out_features = params["output"]["kernel"].shape[1]
    return trainer(config.activation, regime, layers[0].shape[0], out_features, widths)
