# SPDX-License-Identifier: Apache-2.0
"""One gate update against a training step, and what gating adds to a whole run, in one process."""

import sys
import time
from collections.abc import Callable
from statistics import median

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from plprune.functional import functional
from plprune.gating import pl_gating
from plprune.losses import cross_entropy
from plprune.models import CNN, MLP
from plprune.nodes import find_nodes

BATCH, PROBE, UPDATES, STEPS = 128, 64, 20, 1000  # Updates of the default schedule; steps of a run.
INNER = optax.adam(1e-3)


def main(repeats: int) -> int:
    """Print the table of each model."""
    images = jax.random.normal(jax.random.key(0), (BATCH, 28, 28, 1))
    vectors = images.reshape(BATCH, -1)
    measure("MLP 784-256-256-10", MLP(784, (256, 256), 10, rngs=nnx.Rngs(0)), vectors, repeats)
    measure("CNN 28x28, 16 and 32", CNN((28, 28, 1), (16, 32), rngs=nnx.Rngs(0)), images, repeats)
    return 0


def measure(title: str, model: nnx.Module, inputs: jax.Array, repeats: int) -> None:
    """A plain step, a step under `pl_gating` without an update, and one gate update."""
    parts = functional(model)

    def apply(params, inputs):
        return parts.apply(params, parts.state, inputs)

    groups = find_nodes(apply, parts.params, inputs[:2])
    labels = jnp.arange(len(inputs)) % 10

    def gated(updates):
        return pl_gating(
            INNER, apply, groups, keep_fraction=0.5, key=jax.random.key(1),
            initial_updates=updates, probe_size=PROBE,
        )  # fmt: skip

    def stepper(optimizer, first, **extra):
        def step(params, state, inputs):
            def objective(p):
                return jnp.mean(cross_entropy(apply(p, inputs), labels))

            gradients = jax.grad(objective)(params)
            updates, state = optimizer.update(gradients, state, params, **extra)
            return optax.apply_updates(params, updates), state

        compiled, state = jax.jit(step), optimizer.init(parts.params)
        run = compiled(parts.params, state, inputs) if not first else (parts.params, state)
        return lambda: compiled(*run, inputs)

    once = gated(UPDATES)
    calls = {
        "training step": stepper(INNER, True),
        "step under gating, none due": stepper(gated(1), False, probe=inputs),
        f"first step, {UPDATES} gate updates": stepper(once, True, probe=inputs),
    }
    step, masked, first = seconds(calls, repeats).values()
    update = (first - masked) / UPDATES
    say(f"{title}: training step of {BATCH} examples {1e3 * step:.2f} ms")
    say(f"  one gate update, {PROBE} probes   {1e3 * update:8.2f} ms = {update / step:5.2f} steps")
    say(f"  {UPDATES} updates at the start, then shrink: {(first - step) / step / STEPS:+.1%} of "
        f"{STEPS} plain steps")  # fmt: skip
    say(f"  each further step not shrunk:       {masked / step - 1:+.1%}")


def seconds(calls: dict[str, Callable[[], jax.Array]], repeats: int) -> dict[str, float]:
    """Median time of each call; the calls take turns, so that load falls on all of them."""
    for call in calls.values():
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def say(line: str) -> None:
    """One line of the table."""
    sys.stdout.write(f"{line}\n")
