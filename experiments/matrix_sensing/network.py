# SPDX-License-Identifier: Apache-2.0
"""Greedy pruning of image classifiers trained with and without a group lasso on their nodes."""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.matrix_sensing.config import Config
from experiments.progress import Progress
from experiments.results import by_method, each_seed
from plprune.data import load, minibatches, standardization, standardize
from plprune.functional import functional
from plprune.losses import cross_entropy, risk
from plprune.models import MLP
from plprune.nodes import find_nodes, mask, resize, shrink
from plprune.optimizers import group_lasso, keep_above, node_norms

SLICES = "members"  # A node's norm counts incoming and outgoing weights: all that goes with it.
BATCH = 128
RATE = 5e-3  # Adam's, falling to 0 along a cosine.


class Data(NamedTuple):
    """A standardised data set."""

    inputs: jax.Array
    labels: jax.Array
    test_inputs: jax.Array
    test_labels: jax.Array


class Setup(NamedTuple):
    """What all seeds of one data set share; the functions are compiled once."""

    data: Data
    init: Callable  # seed -> params.
    apply: Callable
    groups: Any
    train: dict[str, Callable]  # Method -> (params, batches, data) -> params.
    tune: Callable  # The same from many parameters at once, in fewer steps.
    kept: Callable  # params -> the nodes whose norm is above the threshold.
    norms: Callable  # params -> of every node.
    masked: Callable  # (params, what is kept by size) -> parameters of every size, stacked.
    accuracy: Callable  # (params, data) -> on the test examples.
    accuracies: Callable  # The same of stacked parameters.


def network(config: Config, progress: Progress):
    """Node norms, and accuracy against the nodes kept, before and after fine-tuning."""
    found = {}
    total = config.seeds * len(config.datasets)
    sets = {name: _data(name, config.examples) for name in config.datasets}  # Missing ones now.
    with progress.task("classifiers", total=total) as task:
        for name in config.datasets:
            setup = functools.cache(lambda data=sets[name]: _setup(config, data))
            seeds = each_seed(
                config, progress, name, lambda s, f=setup: _both(config, f(), s), task=task
            )
            found |= {f"{name}/{method}": runs for method, runs in by_method(seeds).items()}
    return found


def _setup(config, data):
    size, classes = math.prod(data.inputs.shape[1:]), int(data.labels.max()) + 1

    def parts(seed):
        return functional(MLP(size, config.widths, classes, rngs=nnx.Rngs(seed)))

    first = parts(0)

    def apply(params, inputs):
        return first.apply(params, first.state, inputs)

    groups = find_nodes(apply, first.params, data.inputs[:2])
    penalty = group_lasso(
        groups, strength=config.network_lam, beta=config.network_beta, form=config.form,
        slices=SLICES,
    )  # fmt: skip
    adam, short = _adam(config.network_steps), _adam(_tuning_steps(config))
    train = {
        "group_lasso": jax.jit(_loop(apply, optax.chain(penalty, adam))),
        "plain": jax.jit(_loop(apply, adam)),
    }
    tune = jax.jit(jax.vmap(_loop(apply, short), in_axes=(0, None, None)))

    accuracy = partial(_accuracy, apply)

    def masked(params, keeps):
        return jax.tree.map(lambda *s: jnp.stack(s), *(mask(params, groups, k) for k in keeps))

    return Setup(
        data, lambda seed: parts(seed).params, apply, groups, train, tune,
        kept=jax.jit(partial(keep_above, groups=groups, threshold=_level(config), slices=SLICES)),
        norms=jax.jit(partial(node_norms, groups=groups, slices=SLICES)),
        masked=jax.jit(masked),
        accuracy=jax.jit(accuracy), accuracies=jax.jit(jax.vmap(accuracy, in_axes=(0, None))),
    )  # fmt: skip


def _level(config):
    """The norm below which a node is pruned."""
    return 2 * math.sqrt(config.network_beta)


def _data(name, examples):
    train, test = load(name, split="train"), load(name, split="test")
    statistics = standardization(train)
    train, test = standardize(train, statistics), standardize(test, statistics)
    few = slice(0, examples)
    return Data(*map(jnp.asarray, (train.images[few], train.labels[few], test.images, test.labels)))


def _adam(num_steps):
    return optax.adam(optax.cosine_decay_schedule(RATE, num_steps))


def _tuning_steps(config):
    return config.network_steps // 5


def _loop(apply, tx):
    """The whole of training on the cross-entropy, one row of `batches` a step."""

    def loop(params, batches, data):
        def step(carry, chosen):
            def objective(params):
                return risk(cross_entropy, apply(params, data.inputs[chosen]), data.labels[chosen])

            params, state = carry
            updates, state = tx.update(jax.grad(objective)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]

    return loop


def _batches(config, data, seed):
    count = len(data.labels)
    key = jax.random.key(seed)
    return minibatches(count, min(BATCH, count), config.network_steps, key=key)


def _both(config, setup, seed):
    """Both ways of training, from one start; plain's is pruned to the other's size."""
    batches = _batches(config, setup.data, seed)
    start = setup.init(seed)
    ends = {name: train(start, batches, setup.data) for name, train in setup.train.items()}
    keep = setup.kept(ends["group_lasso"])
    counts = {name: int(np.sum(kept)) for name, kept in keep.items()}
    found = {}
    for method, params in ends.items():
        one = _measured(config, setup, params, counts, batches[: _tuning_steps(config)])
        found |= {f"{method}/{name}": value for name, value in one.items()}
    return found


def _measured(config, setup, params, counts, batches):
    norms = setup.norms(params)
    flat = np.concatenate([np.asarray(n) for n in norms.values()])
    keep = _keep_largest(norms, counts)
    small = shrink(params, setup.groups, keep)
    small_apply = resize(setup.apply, setup.groups, keep)
    shares = np.geomspace(1 / min(config.widths), 1, config.fractions)
    grid = [{name: math.ceil(s * len(n) - 1e-9) for name, n in norms.items()} for s in shares]
    pruned, tuned = _pruned_and_tuned(setup, params, norms, [counts, *grid], batches)
    return {
        "nodes_above_threshold": np.mean(flat > _level(config)),
        "kept_nodes": np.mean(np.concatenate(list(keep.values()))),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(small)),
        "test_accuracy": setup.accuracy(params, setup.data),
        "test_accuracy_pruned": jax.jit(partial(_accuracy, small_apply))(small, setup.data),
        "test_accuracy_finetuned": tuned[0],
        "node_norms": np.sort(flat)[::-1],
        "sizes": np.array([sum(counts.values()) for counts in grid]) / flat.size,
        "accuracy_pruned": pruned[1:],
        "accuracy_finetuned": tuned[1:],
    }


def _keep_largest(norms, counts):
    """So many of the largest nodes of each layer.

    Layer by layer, because plain training's norms differ in size between layers: one ranking of all
    nodes would starve the last layer.
    """
    ranks = {name: np.argsort(np.argsort(-np.asarray(n))) for name, n in norms.items()}
    return {name: rank < counts[name] for name, rank in ranks.items()}


def _pruned_and_tuned(setup, params, norms, sizes, batches):
    """Test accuracy at each size; a masked node stays closed, for its gradients are zero."""
    masked = setup.masked(params, [_keep_largest(norms, counts) for counts in sizes])
    tuned = setup.tune(masked, batches, setup.data)
    return [np.asarray(setup.accuracies(found, setup.data)) for found in (masked, tuned)]


def _accuracy(apply, params, data):
    outputs = apply(params, data.test_inputs)
    return jnp.mean(jnp.argmax(outputs, axis=1) == data.test_labels)
