# SPDX-License-Identifier: Apache-2.0
"""Limits on latency: how far the pruned model's time is from what was asked for.

Networks are large enough that a pass takes tens of milliseconds. Times are of the processor, all
threads together, and the least of some calls: other programs only add to them.
"""

import time
from functools import partial

import jax
import numpy as np
from flax import nnx

from benchmarks.gating import say
from plprune.costs import latency
from plprune.functional import functional, paired
from plprune.models import CNN, MLP
from plprune.nodes import Target, find_nodes, keep_within, resize, shrink
from plprune.scores import Probe, magnitude

FRACTIONS = (0.75, 0.5, 0.25)  # Of the dense network's time.
HEAD = (
    "network", "asked, ms", "of the dense", "measured, ms", "measured / asked",
    "on the wall, ms", "parameters", "search, s",
)  # fmt: skip


def main(repeats: int) -> int:
    """Print the table."""
    say("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    vectors = jax.random.normal(jax.random.key(0), (512, 784))
    rows_of("MLP 784-2048-2048-10, 512 examples", MLP(784, (2048, 2048), 10, rngs=nnx.Rngs(0)),
            vectors, repeats)  # fmt: skip
    images = jax.random.normal(jax.random.key(0), (64, 32, 32, 3))
    rows_of("CNN 64-128-256, 64 images of 32 x 32",
            CNN((32, 32, 3), (64, 128), (256,), 10, rngs=nnx.Rngs(0)), images, repeats)  # fmt: skip
    return 0


def rows_of(title: str, model: nnx.Module, inputs: jax.Array, repeats: int) -> None:
    """A line for each limit; the pruned network is compiled and timed anew."""
    parts = functional(model)
    apply, variables = paired(parts), (parts.params, parts.state)
    groups = find_nodes(apply, variables, inputs)
    scores = magnitude(apply, variables, groups, Probe(inputs))
    clock = partial(processor_seconds, repeats=repeats)
    dense = clock(apply, variables, inputs)
    for fraction in FRACTIONS:
        limit, start = fraction * dense, time.perf_counter()
        keep = keep_within(
            apply, variables, groups, scores, inputs, Target(seconds=limit), clock=clock
        )
        search = time.perf_counter() - start
        small, function = shrink(variables, groups, keep), resize(apply, groups, keep)
        measured, wall = (f(function, small, inputs) for f in (clock, latency))
        size = sum(map(np.size, jax.tree.leaves(small)))
        cells = (
            title, f"{1e3 * limit:.1f}", f"{fraction:.0%}", f"{1e3 * measured:.1f}",
            f"{measured / limit:.3f}", f"{1e3 * wall:.1f}", f"{size:,}", f"{search:.0f}",
        )  # fmt: skip
        say("| " + " | ".join(cells) + " |")


def processor_seconds(function, *args, repeats: int = 10) -> float:
    """The least over calls of a compiled function, of all threads of this process."""
    compiled = jax.jit(function)
    for _ in range(2):
        jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(compiled(*args))
        times.append(time.process_time() - start)
    return min(times)
