"""Greedy pruning of image classifiers trained with and without a group lasso on their nodes."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.matrix_sensing.config import Config
from experiments.progress import Progress
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


class Model(NamedTuple):
    """A classifier before training."""

    apply: Any
    params: Any
    groups: Any


def network(config: Config, progress: Progress):
    """Node norms, and accuracy against the nodes kept, before and after fine-tuning."""
    found = {}
    total = config.seeds * len(config.datasets)
    with progress.task("classifiers", total=total) as task:
        for name in config.datasets:
            data = _data(name, config.examples)
            for seed in range(config.seed, config.seed + config.seeds):
                work = functools.partial(_both, config, data, seed)
                for key, value in progress.once(f"{name}/{seed}", work).items():
                    method, metric = key.split("/")
                    runs = found.setdefault(f"{name}/{method}", {}).setdefault(seed, {})
                    runs[metric] = value
                task.advance(1)
    return {method: list(runs.values()) for method, runs in found.items()}


def _data(name, examples):
    train, test = load(name, split="train"), load(name, split="test")
    statistics = standardization(train)
    train, test = standardize(train, statistics), standardize(test, statistics)
    few = slice(0, examples)
    return Data(*map(jnp.asarray, (train.images[few], train.labels[few], test.images, test.labels)))


def _both(config, data, seed):
    """Group lasso and plain training from the same start; plain is pruned to the same size too."""
    model = _model(config, data, seed)
    key = jax.random.key(seed)
    penalty = group_lasso(
        model.groups, strength=config.network_lam, beta=config.network_beta, form=config.form,
        slices=SLICES,
    )  # fmt: skip
    regularised = _train(model.apply, model.params, data, config.network_steps, penalty, key=key)
    plain = _train(model.apply, model.params, data, config.network_steps, key=key)
    level = 2 * math.sqrt(config.network_beta)
    keep = keep_above(regularised, model.groups, threshold=level, slices=SLICES)
    size = int(sum(kept.sum() for kept in keep.values()))
    found = {}
    for method, params in (("group_lasso", regularised), ("plain", plain)):
        one = _measured(config, model, params, data, size, level, key)
        found |= {f"{method}/{name}": value for name, value in one.items()}
    return found


def _model(config, data, seed):
    shape = data.inputs.shape[1:]
    classes = int(data.labels.max()) + 1
    parts = functional(MLP(math.prod(shape), config.widths, classes, rngs=nnx.Rngs(seed)))

    def apply(params, inputs):
        return parts.apply(params, parts.state, inputs)

    return Model(apply, parts.params, find_nodes(apply, parts.params, data.inputs[:2]))


def _train(apply, params, data, num_steps, penalty=None, *, key):
    """Parameters after Adam on the cross-entropy, with `penalty` in front of it if there is one."""
    batch = min(BATCH, len(data.labels))
    batches = minibatches(len(data.labels), batch, num_steps, key=key)
    adam = optax.adam(optax.cosine_decay_schedule(RATE, num_steps))
    tx = optax.chain(penalty, adam) if penalty else adam

    def step(carry, chosen, data):
        params, state = carry

        def objective(p):
            return risk(cross_entropy, apply(p, data.inputs[chosen]), data.labels[chosen])

        updates, state = tx.update(jax.grad(objective)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def loop(params, batches, data):
        carry = params, tx.init(params)
        return jax.lax.scan(lambda c, i: step(c, i, data), carry, batches)[0][0]

    return loop(params, batches, data)


def _measured(config, model, params, data, size, level, key):
    norms = node_norms(params, model.groups, slices=SLICES)
    flat = np.concatenate([np.asarray(n) for n in norms.values()])
    keep = _keep_largest(norms, size)
    small = shrink(params, model.groups, keep)
    small_apply = resize(model.apply, model.groups, keep)
    tuned = _train(small_apply, small, data, config.network_steps // 5, key=key)
    sizes = np.unique(np.geomspace(len(norms), flat.size, config.fractions).round().astype(int))
    curves = [_pruned_and_tuned(config, model, params, data, norms, n, key) for n in sizes]
    pruned, retrained = zip(*curves, strict=True)
    return {
        "nodes_above_threshold": np.mean(flat > level),
        "kept_nodes": np.mean(np.concatenate(list(keep.values()))),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(small)),
        "test_accuracy": _accuracy(model.apply, params, data),
        "test_accuracy_pruned": _accuracy(small_apply, small, data),
        "test_accuracy_finetuned": _accuracy(small_apply, tuned, data),
        "node_norms": np.sort(flat)[::-1],
        "sizes": sizes / flat.size,
        "accuracy_pruned": np.array(pruned),
        "accuracy_finetuned": np.array(retrained),
    }


def _keep_largest(norms, size):
    """The `size` largest nodes of all layers together, but at least one of each layer."""
    flat = np.concatenate([np.asarray(n) for n in norms.values()])
    cut = np.sort(flat)[::-1][size - 1]
    keep = {name: np.asarray(n) >= cut for name, n in norms.items()}
    return {name: k | (np.arange(k.size) == np.argmax(norms[name])) for name, k in keep.items()}


def _pruned_and_tuned(config, model, params, data, norms, size, key):
    """Accuracy with `size` nodes left; masked nodes stay closed, for their gradients are zero."""
    masked = mask(params, model.groups, _keep_largest(norms, size))
    tuned = _tune(model, masked, data, config.network_steps // 5, key)
    return _accuracy(model.apply, masked, data), _accuracy(model.apply, tuned, data)


def _tune(model, params, data, num_steps, key):
    return _train(model.apply, params, data, num_steps, key=key)


def _accuracy(apply, params, data):
    outputs = jax.jit(apply)(params, data.test_inputs)
    return float(jnp.mean(jnp.argmax(outputs, axis=1) == data.test_labels))
