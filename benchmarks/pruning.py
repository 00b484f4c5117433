# SPDX-License-Identifier: Apache-2.0
"""Node discovery, and how much faster shrunk models are than dense ones, in one process."""

import sys
import time
from collections.abc import Callable
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.race import Contestant, run
from plprune.functional import functional, paired
from plprune.models import CNN, MLP, ResNet
from plprune.nodes import find_nodes, resize, shrink, shrink_model

STEP = optax.sgd(0.1, momentum=0.9)


def main(repeats: int) -> int:
    """Print the tables."""
    images = jax.random.normal(jax.random.key(0), (64, 32, 32, 3))
    forward("ResNet-20, 64 images of 32 x 32", ResNet(rngs=nnx.Rngs(0)), images, repeats)
    peer("Torch-Pruning 1.6.1 on the same network", images, repeats)
    cnn = CNN((32, 32, 3), (64, 128), (256,), 10, rngs=nnx.Rngs(0))
    training("CNN 64-128-256, 64 images of 32 x 32", cnn, images, repeats)
    vectors = jax.random.normal(jax.random.key(0), (128, 784))
    model = MLP(784, (1024, 1024), 10, rngs=nnx.Rngs(0))
    training("MLP 784-1024-1024-10, 128 examples", model, vectors, repeats)
    return 0


def forward(title: str, model: nnx.Module, inputs: jax.Array, repeats: int) -> None:
    """Half of every group: parameters, discovery and a forward pass, native and resized."""
    parts = functional(model)
    variables, apply = (parts.params, parts.state), paired(parts)
    start = time.perf_counter()
    groups = find_nodes(apply, variables, inputs)
    discovery = time.perf_counter() - start
    keep = {name: np.arange(size) % 2 == 0 for name, size in groups.prunable.items()}
    small = shrink(variables, groups, keep)
    native = functional(shrink_model(model, groups, keep))
    calls = {
        "dense": (jax.jit(apply), variables),
        "resized": (jax.jit(resize(apply, groups, keep)), small),
        "native": (jax.jit(paired(native)), (native.params, native.state)),
    }
    times = seconds({n: (lambda f=f, v=v: f(v, inputs)) for n, (f, v) in calls.items()}, repeats)
    _say(f"{title}: {_count(parts.params):,} -> {_count(native.params):,} parameters")
    _say(f"  discovery with tracing  {discovery:.3f} s")
    report(times)


def peer(title: str, images: jax.Array, repeats: int) -> None:
    """The same for Torch-Pruning, in its own environment and process."""
    contestant = Contestant(title, "torch_pruning_resnet", "", "torch")
    numbers, _, reason = run(contestant, {"x": np.asarray(images)}, repeats)
    if numbers is None:
        _say(f"{title}: skipped: {reason}")
        return
    before, after = (numbers["parameters"][name] for name in ("dense", "pruned"))
    _say(f"{title}: {before:,} -> {after:,} parameters")
    _say(f"  discovery with tracing  {numbers['discovery']:.3f} s")
    report({name: numbers[name] for name in ("dense", "pruned")})


def training(title: str, model: nnx.Module, inputs: jax.Array, repeats: int) -> None:
    """Half of every group: a training step of the dense, the resized and the native model."""
    parts = functional(model)
    apply = paired(parts)
    variables = (parts.params, parts.state)
    groups = find_nodes(apply, variables, inputs)
    keep = {name: np.arange(size) % 2 == 0 for name, size in groups.prunable.items()}
    runs = {"dense": (apply, variables)}
    runs["resized"] = (resize(apply, groups, keep), shrink(variables, groups, keep))
    native = functional(shrink_model(model, groups, keep))
    runs["native"] = (paired(native), (native.params, native.state))

    def stepper(function, variables):
        @jax.jit
        def step(params, state, inputs):
            def loss(params):
                return jnp.mean(function((params, variables[1]), inputs) ** 2)

            updates, state = STEP.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        state = STEP.init(variables[0])
        return lambda: step(variables[0], state, inputs)

    times = seconds({name: stepper(*run) for name, run in runs.items()}, repeats)
    _say(f"{title}, one training step")
    report(times)


def seconds(calls: dict[str, Callable[[], jax.Array]], repeats: int) -> dict[str, float]:
    """Median time of each call; they take turns in random order.

    In a fixed order one of them would always find the dense model's arrays in the caches.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    times, draws = {name: [] for name in calls}, np.random.default_rng(0)
    for _ in range(repeats):
        for name in draws.permutation(list(calls)).tolist():
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def report(times: dict[str, float]) -> None:
    """One line per contestant, in ratio to the dense one."""
    for name, value in times.items():
        _say(f"  {name:<8} {1e3 * value:8.2f} ms  dense / this = {times['dense'] / value:.2f}")


def _say(line):
    sys.stdout.write(f"{line}\n")


def _count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))
