# SPDX-License-Identifier: Apache-2.0
"""Classifiers without BatchNorm: the pair against width and channels; and the images of all."""

import math

import jax.numpy as jnp
import numpy as np
import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.training import Training
from plprune.data import load, standardization, standardize
from plprune.models import CNN, MLP


def data(config: Config, figure: str):
    """((images, labels), number of classes) of a figure."""
    if figure == "width":
        return classified(config.dataset, config.examples)
    return classified(config.images, config.conv_examples, config.conv_side)


def classified(name: str, examples: int, side: int | None = None):
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


def width(config: Config, data):
    """An MLP of three layers whose second is from narrow to wide (figures 4, 11, 12)."""
    arrays, classes = data
    size = math.prod(arrays[0].shape[1:])
    steps = config.epochs * (len(arrays[1]) // config.batch)

    def training(second):
        def build(rngs):
            return MLP(size, (config.first_width, second), classes, rngs=rngs)

        return Training(build, optax.sgd(config.rate), arrays, config.batch, steps)

    return {f"width_{w}": lambda w=w: training(w) for w in config.widths}


def middle_width(config: Config) -> Training:
    """The MLP in the middle of the figure width, to compare other models with."""
    trainings = list(width(config, data(config, "width")).values())
    return trainings[len(trainings) // 2]()


def channels(config: Config, data):
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
