# SPDX-License-Identifier: Apache-2.0
"""What `recalibrate` gives back of the accuracy that cutting costs networks with BatchNorm.

Networks of the digits, 400 steps of Adam, nothing trained after nodes are closed. Recovered is the
part of (whole - cut) that (recalibrated - cut) is, as a mean over seeds and its standard error.
`--repeats` is the number of seeds.
"""

from collections import defaultdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.gating import say
from plprune import recalibrate
from plprune.data import load, minibatches
from plprune.functional import Functional, functional, paired
from plprune.losses import cross_entropy
from plprune.models import ResNet
from plprune.nodes import find_nodes, keep_top, mask
from plprune.scores import Probe, magnitude, obs
from plprune.training import make_step, run_minibatches, start

SCORES = {"magnitude": magnitude, "obs": obs, "obs, update=True": partial(obs, update=True)}
FRACTIONS = (0.75, 0.6, 0.5)  # Of the nodes of each group, which stay.
BATCH, STEPS, PROBE = 64, 400, 512
OPTIMIZER = optax.adam(2e-3)
HEAD = ("network", "score", "kept", "whole, %", "cut, %", "recalibrated, %", "recovered")


class Network(nnx.Module):
    """Three convolutions, each with BatchNorm, and a mean over what is left of the image."""

    def __init__(self, rngs: nnx.Rngs):
        """Widths of 16, 32 and 64."""
        sizes = ((1, 16), (16, 32), (32, 64))
        self.convs = nnx.List(nnx.Conv(n, m, (3, 3), use_bias=False, rngs=rngs) for n, m in sizes)
        self.norms = nnx.List(nnx.BatchNorm(m, momentum=0.9, rngs=rngs) for _, m in sizes)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        """Logits of images [b, 8, 8, 1]."""
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = nnx.relu(norm(conv(x)))
            if k < 2:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.head(x.mean((1, 2)))


def residual(rngs: nnx.Rngs) -> nnx.Module:
    """Three residual blocks of 16, 32 and 64 channels."""
    return ResNet(1, (1, 1, 1), (16, 32, 64), rngs=rngs)


TABLES = {}


def _table(title, build):
    TABLES[title] = lambda repeats: run(title, build, repeats)


_table("cnn", Network)
_table("resnet", residual)


def main(repeats: int) -> int:
    """Print the table of both networks."""
    for table in TABLES.values():
        table(repeats)
    return 0


def run(title: str, build: Any, seeds: int) -> int:
    """Print the lines of one network."""
    images, labels = _data("train")
    parts = functional(build(nnx.Rngs(0)))
    groups = find_nodes(paired(parts), (parts.params, parts.state), images[:4])
    fit, accuracy = _fit(parts, images, labels), _accuracy(parts)
    probe = Probe(images[:PROBE])
    batches = [images[k : k + BATCH] for k in range(0, len(images) - BATCH + 1, BATCH)]
    found = defaultdict(list)
    for seed in range(seeds):
        first, key = functional(build(nnx.Rngs(seed))), jax.random.key(seed)
        whole = fit(first.params, first.state, key)
        for name, score in SCORES.items():
            scores = score(paired(parts), whole, groups, probe)
            for fraction in FRACTIONS:
                params, state = mask(whole, groups, keep_top(scores, groups, fraction))
                closed = parts._replace(params=params, state=state)
                anew = recalibrate(closed, batches, key=key)
                each = accuracy(*whole), accuracy(params, state), accuracy(params, anew)
                found[name, fraction].append(each)
    say("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for (name, fraction), rows in found.items():
        say(_line(title, name, fraction, np.array(rows, float)))
    return 0


def _line(title, name, fraction, rows):
    whole, cut, anew = rows.T
    part = (anew - cut) / (whole - cut)
    error = part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan
    means = (f"{x.mean():.1f}" for x in (whole, cut, anew))
    cells = (title, name, f"{fraction:g}", *means, f"{part.mean():.2f} ± {error:.2f}")
    return "| " + " | ".join(cells) + " |"


def _data(split):
    data = load("digits", split=split)
    return jnp.asarray(data.images), jnp.asarray(data.labels)


def _fit(parts: Functional, images, labels):
    step = make_step(parts.train, cross_entropy, OPTIMIZER)

    @jax.jit
    def fit(params, state, key):
        first = start(params, state, OPTIMIZER, key=key)
        indices = minibatches(len(images), BATCH, STEPS, key=key)
        last, _ = run_minibatches(step, first, (images, labels), indices)
        return last.params, last.state

    return fit


def _accuracy(parts: Functional):
    images, labels = _data("test")

    @jax.jit
    def accuracy(params, state):
        return 100 * jnp.mean(parts.apply(params, state, images).argmax(-1) == labels)

    return accuracy
