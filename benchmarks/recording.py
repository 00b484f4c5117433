# SPDX-License-Identifier: Apache-2.0
"""What recording the condition's scalars adds to training, and the time of the frontier."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.gating import say, seconds
from plprune.conditions import alpha_beta_frontier, batch_losses, recording
from plprune.data import minibatches
from plprune.functional import functional
from plprune.losses import cross_entropy
from plprune.models import CNN, MLP
from plprune.training import compile_minibatches, make_step, minibatch_losses, start

BATCH, STEPS, POINTS = 64, 40, 10**6


def main(repeats: int) -> int:
    """Print the ratios of each model, and the seconds of the frontier."""
    images = jax.random.normal(jax.random.key(0), (BATCH * STEPS, 28, 28, 1))
    for widths in ((32, 512), (256, 256)):
        mlp = MLP(784, widths, 10, rngs=nnx.Rngs(0))
        measure(f"MLP, hidden {widths}", mlp, images.reshape(len(images), -1), repeats)
    measure("CNN 28x28, 8 and 16", CNN((28, 28, 1), (8, 16), rngs=nnx.Rngs(0)), images, repeats)
    rng = np.random.default_rng(0)
    points = rng.normal(size=POINTS), rng.normal(size=POINTS), rng.random(POINTS) + 0.01
    (spent,) = seconds({"frontier": lambda: alpha_beta_frontier(*points)}, repeats).values()
    say(f"frontier of {POINTS:,} steps: {spent:.2f} s")
    return 0


def measure(title: str, model: nnx.Module, inputs: jax.Array, repeats: int) -> None:
    """An epoch of steps with and without the recorder, and the losses at the last iterate."""
    parts, key = functional(model), jax.random.key(1)
    data = inputs, jnp.arange(len(inputs)) % 10
    indices = minibatches(len(inputs), BATCH, STEPS, key=key)

    def epoch(optimizer, **extra):
        step = make_step(parts.train, cross_entropy, optimizer)
        first = start(parts.params, parts.state, optimizer, key=key)
        run = compile_minibatches(step, parts.params)
        return lambda: run(first, data, indices, **extra)

    @jax.jit
    def of_minibatches(params, data):
        options = {"key": key}
        return minibatch_losses(
            parts.train, cross_entropy, params, parts.state, data, indices, **options
        )

    @jax.jit
    def of_examples(params, data):
        losses = cross_entropy(parts.apply(params, parts.state, data[0]), data[1])
        return batch_losses(losses, indices)

    optimizer, apart = optax.sgd(0.01), not jax.tree.leaves(parts.state)
    losses = of_examples if apart else of_minibatches
    times = seconds(
        {
            "plain": epoch(optimizer),
            "recorded": epoch(recording(optimizer, STEPS), reference=parts.params),
            "losses": lambda: losses(parts.params, data),
        },
        repeats,
    )
    plain = times["plain"]
    say(f"{title}: step of {BATCH} examples {1e3 * plain / STEPS:.2f} ms")
    say(f"  recorded:                     {times['recorded'] / plain - 1:+.0%}")
    often = "once a run" if apart else "for every epoch, with the batches' statistics"
    say(f"  losses at the last iterate:   {times['losses'] / plain:.0%} of an epoch, {often}")
