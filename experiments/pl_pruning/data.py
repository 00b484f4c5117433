# SPDX-License-Identifier: Apache-2.0
"""The arrays of a run: images or windows of text, split for each regime and seed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pl_pruning.settings import TEXT_LOSSES, Config, Regime
from plprune.data import (
    check,
    load,
    load_text,
    mask_tokens,
    sequences,
    standardization,
    standardize,
)

_MASK_SEED = 0  # Of the test set's masks, which are the same for all seeds.


class Examples(NamedTuple):
    """Inputs and what is to be learned of them: classes, or tokens at every position."""

    inputs: np.ndarray  # [n, ...].
    labels: np.ndarray  # [n] or [n, t].


class Splits(NamedTuple):
    """A data set before a regime takes its examples."""

    train: Examples
    test: Examples
    num_outputs: int  # Of the network: classes, or tokens with the mask.
    title: str


class Data(NamedTuple):
    """The arrays of one regime and seed. Targets are labels, or one-hot rows less .1."""

    inputs: jax.Array  # [n, ...], the training examples.
    targets: jax.Array
    test_inputs: jax.Array
    test_targets: jax.Array
    validation: tuple[jax.Array, jax.Array] | None  # Inputs and targets, to stop by.


def load_splits(config: Config) -> Splits:
    """Training and test examples, checked; images standardised by the training split alone."""
    text = any(regime.loss in TEXT_LOSSES for regime in config.regimes)
    splits = _text(config) if text else _images(config)
    needed = max(regime.train_examples + regime.validation for regime in config.regimes)
    if needed > len(splits.train.labels):
        raise ValueError(
            f"train_examples must be at most the {len(splits.train.labels)} of {config.dataset}, "
            f"got {needed}."
        )
    return splits


def _images(config):
    train, test = (load(config.dataset, split=split) for split in ("train", "test"))
    for part in (train, test):
        check(part)
    if config.standardise:
        statistics = standardization(train)
        train, test = standardize(train, statistics), standardize(test, statistics)
    parts = (Examples(part.images, part.labels) for part in (train, test))
    return Splits(*parts, train.num_classes, train.title)


def _text(config):
    parts, masked = [], any(regime.loss == "masked_tokens" for regime in config.regimes)
    for split in ("train", "test"):
        text = load_text(config.dataset, split=split)
        windows = sequences(text, config.sequence_length)
        parts.append(Examples(windows.inputs, windows.targets))
    return Splits(*parts, text.num_tokens + masked, text.title)


def title(config: Config) -> str:
    """What the data set calls itself, which says so where a copy is lossy."""
    if any(regime.loss in TEXT_LOSSES for regime in config.regimes):
        return load_text(config.dataset, split="train[:1]").title
    return load(config.dataset, split="train[:1]").title


def regime_data(splits: Splits, regime: Regime, key: jax.Array) -> Data:
    """The regime's training examples, drawn by `key`, and the test examples: the split's first."""
    order = np.asarray(jax.random.permutation(key, len(splits.train.labels)))
    chosen, rest = order[: regime.train_examples], order[regime.train_examples :]
    held_out, rest = rest[: regime.validation], rest[regime.validation :]
    if not regime.tests_on_rest:
        rest = rest[:0]
    tests = (np.concatenate([a, b[rest]]) for a, b in zip(splits.test, splits.train, strict=True))
    keys = jax.random.split(key)

    def part(examples, key):
        return _targets(Examples(*examples), regime, splits.num_outputs, key)

    validation = [part([a[held_out] for a in splits.train], keys[1])] if regime.validation else []
    return Data(
        *part([a[chosen] for a in splits.train], keys[0]),
        *part(tests, jax.random.key(_MASK_SEED)),
        *(validation or [None]),
    )


def _targets(examples: Examples, regime, num_outputs, key) -> tuple[Any, Any]:
    inputs, labels = jnp.asarray(examples.inputs), jnp.asarray(examples.labels, jnp.int32)
    if regime.loss == "masked_tokens":
        return tuple(mask_tokens(inputs, key=key, num_tokens=num_outputs - 1))
    square = regime.loss == "square"
    return inputs, jax.nn.one_hot(labels, num_outputs) - 0.1 if square else labels
