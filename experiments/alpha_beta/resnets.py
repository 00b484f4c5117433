# SPDX-License-Identifier: Apache-2.0
"""ResNets, with BatchNorm: the pair against batch size, optimiser and depth."""

import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.networks import classified
from experiments.alpha_beta.training import Training
from plprune.models import ResNet, ResNet9

MOMENTUM = 0.9
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def data(config: Config, figure: str):
    """((images, labels), number of classes)."""
    del figure
    return classified(config.images, config.resnet_examples, config.resnet_side)


def batch_size(config: Config, data):
    """ResNet-9 under plain descent with larger and larger minibatches (figures 6, 15).

    The paper fixes the epochs, so that a larger batch also takes fewer steps; `batch_steps` fixes
    the steps.
    """
    rule, steps = (optax.sgd, config.resnet_rate), config.batch_steps
    return {
        f"batch_{b}": lambda b=b: _training(config, data, 9, b, *rule, steps=steps)
        for b in config.batches
    }


def optimizer(config: Config, data):
    """ResNet-9 under plain descent, momentum and Adam (figure 16)."""
    rules = {
        "sgd": (optax.sgd, config.resnet_rate),
        "momentum": (_momentum, config.momentum_rate),
        "adam": (optax.adam, config.adam_rate),
    }
    return {
        name: lambda name=name: _training(config, data, 9, config.batch, *rules[name])
        for name in config.optimizers
    }


def depth(config: Config, data):
    """ResNets of more and more layers under momentum (figure 17, which has 18 and 34)."""
    return {
        f"depth_{d}": lambda d=d: _training(
            config, data, d, config.batch, _momentum, config.momentum_rate
        )
        for d in config.depths
    }


def _momentum(rate):
    return optax.sgd(rate, MOMENTUM)


def _training(config, data, layers, batch, rule, rate, *, steps=0):
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
