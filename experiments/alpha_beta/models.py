# SPDX-License-Identifier: Apache-2.0
"""What each figure trains: classifiers of images, and models of text.

A figure is a function ``(config, data) -> {method: function that gives its `Training`}``.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.training import Training
from plprune.data import Text, load, load_text, sequences, standardization, standardize
from plprune.models import CNN, MLP, CausalTransformer, LSTMLanguageModel, ResNet, ResNet9
from plprune.optimizers import nsgd

MOMENTUM = 0.9
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # Of ResNets; that of 9 layers has its own class.
Data = tuple[tuple[Any, Any], int]  # (inputs, labels), number of classes.
Trainings = dict[str, Callable[[], Training]]


def data_of(config: Config, figure: str) -> Data:
    """The arrays of a figure: images and labels, or windows of text and the same a token later."""
    if figure in ("lstm", "transformer"):
        return text_windows(config)
    if figure == "width":
        return classified(config.dataset, config.examples)
    if figure == "channels":
        return classified(config.images, config.conv_examples, config.conv_side)
    return classified(config.images, config.resnet_examples, config.resnet_side)


def classified(name: str, examples: int, side: int | None = None) -> Data:
    """The first images of a training set, standardised; averaged down to `side` pixels a side."""
    images = load(name, split="train")
    if side is not None:
        images = images._replace(images=averaged(images.images, side))
    images = standardize(images, standardization(images))
    inputs, labels = images.images[:examples], images.labels[:examples]
    return (jnp.asarray(inputs), jnp.asarray(labels)), images.num_classes


def averaged(images: np.ndarray, side: int) -> np.ndarray:
    """Means over square blocks, so that images are `side` pixels high and wide."""
    block = images.shape[1] // side
    blocks = images.reshape(len(images), side, block, side, block, images.shape[-1])
    return blocks.mean(axis=(2, 4))


def text_windows(config: Config) -> Data:
    """Windows of the corpus; its bytes are the classes."""
    if config.corpus == "python_manual":
        text = _manual(config.text)
    else:
        text = load_text(config.corpus, split=f"train[:{config.text}]")
    windows = sequences(text, config.length)
    return (jnp.asarray(windows.inputs), jnp.asarray(windows.targets)), text.num_tokens


def width(config: Config, data: Data) -> Trainings:
    """An MLP of three layers whose second is from narrow to wide (figures 4, 11, 12)."""
    arrays, classes = data
    size = math.prod(arrays[0].shape[1:])
    steps = config.epochs * (len(arrays[1]) // config.batch)

    def training(second):
        def build(rngs):
            return MLP(size, (config.first_width, second), classes, rngs=rngs)

        return Training(build, optax.sgd(config.rate), arrays, config.batch, steps)

    return {f"width_{w}": lambda w=w: training(w) for w in config.widths}


def channels(config: Config, data: Data) -> Trainings:
    """A CNN whose second layer is from narrow to wide, with a cosine schedule (5, 13, 14)."""
    arrays, classes = data
    steps = config.conv_epochs * (len(arrays[1]) // config.batch)

    def training(second):
        def build(rngs):
            sizes = (config.first_channels, second)
            return CNN(arrays[0].shape[1:], sizes, (), classes, batch_norm=False, rngs=rngs)

        rule = optax.sgd(optax.cosine_decay_schedule(config.conv_rate, steps))
        return Training(build, rule, arrays, config.batch, steps)

    return {f"channels_{c}": lambda c=c: training(c) for c in config.channels}


def batch_size(config: Config, data: Data) -> Trainings:
    """ResNet-9 under plain descent with larger and larger minibatches (figures 6, 15).

    The paper fixes the epochs, so that a larger batch also takes fewer steps; `batch_steps` fixes
    the steps.
    """
    rule, steps = (optax.sgd, config.resnet_rate), config.batch_steps
    return {
        f"batch_{b}": lambda b=b: _resnet(config, data, 9, b, *rule, steps=steps)
        for b in config.batches
    }


def optimizer(config: Config, data: Data) -> Trainings:
    """ResNet-9 under plain descent, momentum and Adam (figure 16)."""
    rules = {
        "sgd": (optax.sgd, config.resnet_rate),
        "momentum": (_momentum, config.momentum_rate),
        "adam": (optax.adam, config.adam_rate),
    }
    return {
        name: lambda name=name: _resnet(config, data, 9, config.batch, *rules[name])
        for name in config.optimizers
    }


def depth(config: Config, data: Data) -> Trainings:
    """ResNets of more and more layers under momentum (figure 17, which has 18 and 34)."""
    rule = _momentum, config.momentum_rate
    return {
        f"depth_{d}": lambda d=d: _resnet(config, data, d, config.batch, *rule)
        for d in config.depths
    }


def lstm(config: Config, data: Data) -> Trainings:
    """A 3-layer LSTM: the angle and the PL constant (figures 1, 8, 10), and an MLP beside it."""
    arrays, vocabulary = data
    width = config.lstm_width

    def build(rngs):
        return LSTMLanguageModel(vocabulary, width, (width,) * 3, rngs=rngs)

    schedule = optax.cosine_decay_schedule(config.lstm_rate, config.lstm_steps)
    rule = nsgd(schedule, momentum=MOMENTUM)
    return {
        "lstm": lambda: Training(build, rule, arrays, config.text_batch, config.lstm_steps),
        "mlp": lambda: _middle_width(config),
    }


def transformer(config: Config, data: Data) -> Trainings:
    """A causal transformer in place of the paper's largest models (figures 7, 18, 19)."""
    arrays, vocabulary = data
    width = config.text_width
    sizes = {"positions": config.length, "features": width, "width": 4 * width}
    sizes |= {"layers": config.text_layers, "heads": config.heads}

    def build(rngs):
        return CausalTransformer(vocabulary=vocabulary, **sizes, rngs=rngs)

    rule = optax.adamw(optax.cosine_decay_schedule(config.text_rate, config.text_steps))
    return {
        "transformer": lambda: Training(build, rule, arrays, config.text_batch, config.text_steps)
    }


def _middle_width(config) -> Training:
    """The MLP in the middle of the figure width."""
    trainings = list(width(config, data_of(config, "width")).values())
    return trainings[len(trainings) // 2]()


def _momentum(rate):
    return optax.sgd(rate, MOMENTUM)


def _resnet(config, data, layers, batch, rule, rate, *, steps=0):
    """With BatchNorm and a one-cycle schedule."""
    arrays, classes = data
    steps = steps or config.resnet_epochs * (len(arrays[1]) // batch)
    sizes = {"widths": config.resnet_widths, "out_features": classes}

    def build(rngs):
        features = arrays[0].shape[-1]
        if layers == 9:
            return ResNet9(features, **sizes, rngs=rngs)
        return ResNet(features, BLOCKS[layers], **sizes, rngs=rngs)

    schedule = optax.cosine_onecycle_schedule(steps, rate)
    return Training(build, rule(schedule), arrays, batch, steps)


def _manual(size):
    """The first bytes of the language reference that Python's own help prints."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).encode()[:size]
    tokens = np.frombuffer(text, np.uint8)
    return Text(tokens, 256, "python_manual", "Python's manual", "")
