# SPDX-License-Identifier: Apache-2.0
"""One gate update against a training step, and what gating adds to a whole run, in one process."""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from plprune.functional import functional
from plprune.gating import log_condition_number, pl_gating
from plprune.losses import cross_entropy
from plprune.models import CNN, MLP
from plprune.nodes import find_nodes

BATCH, PROBE, UPDATES, STEPS = 128, 64, 20, 1000  # Updates of the default schedule; steps of a run.
FEW = 5  # Updates on the kernel of all outputs, which cost more.
INNER = optax.adam(1e-3)


def main(repeats: int) -> int:
    """Print the table of each model."""
    images = jax.random.normal(jax.random.key(0), (BATCH, 28, 28, 1))
    vectors = images.reshape(BATCH, -1)
    measure("MLP 784-256-256-10", MLP(784, (256, 256), 10, rngs=nnx.Rngs(0)), vectors, repeats)
    measure("CNN 28x28, 16 and 32", CNN((28, 28, 1), (16, 32), rngs=nnx.Rngs(0)), images, repeats)
    return 0


def measure(title: str, model: nnx.Module, inputs: jax.Array, repeats: int) -> None:
    """A plain step, a step under `pl_gating` without an update, one gate update, a whole run."""
    parts = functional(model)

    def apply(params, inputs):
        return parts.apply(params, parts.state, inputs)

    groups = find_nodes(apply, parts.params, inputs[:2])
    labels = jnp.arange(len(inputs)) % 10

    def gated(updates, combinations=1):
        return pl_gating(
            INNER, apply, groups, keep_fraction=0.5, key=jax.random.key(1),
            initial_updates=updates, probe_size=PROBE,
            objective=log_condition_number(num_combinations=combinations),
        )  # fmt: skip

    def stepper(optimizer, *, first, steps=1, **extra):
        def step(params, state):
            def objective(p):
                return jnp.mean(cross_entropy(apply(p, inputs), labels))

            gradients = jax.grad(objective)(params)
            updates, state = optimizer.update(gradients, state, params, **extra)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(step)
        begin = parts.params, optimizer.init(parts.params)
        begin = begin if first else compiled(*begin)

        def call():
            now = begin
            for _ in range(steps):
                now = compiled(*now)
            return now

        return call

    report(title, gated, stepper, {"probe": inputs}, repeats)


def report(title: str, gated: Callable, stepper: Callable, probe: dict, repeats: int) -> None:
    """Measure and print the lines of one model."""
    once = stepper(gated(UPDATES), first=True, **probe)
    step, masked, one, outputs = seconds(
        [
            stepper(INNER, first=True),
            stepper(gated(1), first=False, **probe),
            once,
            stepper(gated(FEW, None), first=True, **probe),
        ],
        repeats,
    )
    say(f"{title}: training step of {BATCH} examples {1e3 * step:.2f} ms")
    updates = {
        "one combination of the outputs": (one - masked) / UPDATES,
        "all 10 outputs": (outputs - masked) / FEW,
    }
    for what, update in updates.items():
        say(f"  one gate update, {PROBE} probes, {what}: {1e3 * update:.2f} ms = "
            f"{update / step:.2f} steps")  # fmt: skip
    say(f"  each further step not shrunk: {masked / step - 1:+.1%}")
    run, gating = seconds([stepper(INNER, first=True, steps=STEPS), once], max(1, repeats // 3))
    say(f"  {UPDATES} updates at the start: {(gating - step) / run:+.1%} of a run of {STEPS} plain "
        f"steps, {run:.1f} s")  # fmt: skip


def seconds(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median time of each call; the calls take turns, so that load falls on all of them."""
    for call in calls:
        jax.block_until_ready(call())
    times = [[] for _ in calls]
    for _ in range(repeats):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call())
            own.append(time.perf_counter() - start)
    return [median(own) for own in times]


def say(line: str) -> None:
    """One line of the table."""
    sys.stdout.write(f"{line}\n")
