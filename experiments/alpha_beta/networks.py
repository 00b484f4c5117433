"""Image classifiers: the pair against width, channels, batch size and optimiser."""

import functools
import math

import jax.numpy as jnp
import optax

from experiments.alpha_beta.config import Config
from experiments.alpha_beta.training import Training, runner
from experiments.progress import Progress
from plprune.data import load, standardization, standardize
from plprune.models import CNN, MLP

MOMENTUM = 0.9
ADAM_SHARE = 0.02  # Adam's rate over that of gradient descent.


def width(config: Config, progress: Progress):
    """An MLP of three layers whose second is from narrow to wide (figures 4, 11, 12)."""
    data, classes = _data(config.dataset, config.examples)
    size = math.prod(data[0].shape[1:])
    steps = config.epochs * (len(data[1]) // config.batch)

    def training(second):
        def build(rngs):
            return MLP(size, (config.first_width, second), classes, rngs=rngs)

        return Training(build, optax.sgd(config.rate), data, config.batch, steps)

    return runs(config, progress, {f"width_{w}": lambda w=w: training(w) for w in config.widths})


def channels(config: Config, progress: Progress):
    """A CNN whose second layer is from narrow to wide (figures 5, 13, 14)."""
    of = _cnn(config)
    settings = {
        f"channels_{c}": lambda c=c: of(c, config.batch, lambda rate: optax.sgd(rate))
        for c in config.channels
    }
    return runs(config, progress, settings)


def batch_size(config: Config, progress: Progress):
    """A CNN with larger and larger minibatches, for as many epochs (figures 6, 15)."""
    of = _cnn(config)
    middle = config.channels[len(config.channels) // 2]
    settings = {
        f"batch_{b}": lambda b=b: of(middle, b, lambda rate: optax.sgd(rate))
        for b in config.batches
    }
    return runs(config, progress, settings)


def optimizer(config: Config, progress: Progress):
    """A CNN under plain descent, momentum and Adam (figure 16)."""
    of = _cnn(config)
    middle = config.channels[len(config.channels) // 2]
    rules = {
        "sgd": optax.sgd,
        # The same step in the long run as without momentum.
        "momentum": lambda rate: optax.chain(
            optax.trace(MOMENTUM), optax.scale(1 - MOMENTUM), optax.scale_by_learning_rate(rate)
        ),
        "adam": lambda rate: optax.adam(_scaled(rate, ADAM_SHARE)),
    }
    settings = {
        name: lambda name=name: of(middle, config.batch, rules[name]) for name in config.optimizers
    }
    return runs(config, progress, settings)


def _scaled(schedule, factor):
    return lambda step: factor * schedule(step)


def _cnn(config):
    """(channels of the second layer, batch size, rule) -> a training with a cosine schedule."""
    data, classes = _data(config.images, config.examples)

    def training(second, batch, rule):
        steps = config.conv_epochs * (len(data[1]) // batch)

        def build(rngs):
            sizes = (config.first_channels, second)
            return CNN(data[0].shape[1:], sizes, (), classes, batch_norm=False, rngs=rngs)

        schedule = optax.cosine_decay_schedule(config.conv_rate, steps)
        return Training(build, rule(schedule), data, batch, steps)

    return training


def runs(config, progress, settings):
    """Every setting on every seed."""
    found = {}
    for name, training in settings.items():
        one = functools.cache(lambda training=training: runner(config, training()))
        found[name] = []
        with progress.task(name, total=config.seeds) as task:
            for seed in range(config.seed, config.seed + config.seeds):
                numbers = progress.once(f"{name}/{seed}", lambda s=seed, one=one: one()(s))
                found[name].append(numbers)
                task.advance(1, loss=float(numbers["final_loss"]))
    return found


def _data(name, examples):
    images = load(name, split="train")
    images = standardize(images, standardization(images))
    inputs, labels = images.images[:examples], images.labels[:examples]
    return (jnp.asarray(inputs), jnp.asarray(labels)), images.num_classes
