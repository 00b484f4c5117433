# SPDX-License-Identifier: Apache-2.0
"""A gate update of a language model with a large vocabulary: seconds, memory, training steps.

Two layers of width 128 on 64 tokens, 64 sequences to a batch and to a probe. The peak of resident
memory is that of the whole process up to the last gate update, which comes before any training.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.gating import say, seconds
from plprune.functional import functional, stateless
from plprune.gating import pl_gating
from plprune.losses import cross_entropy
from plprune.models import CausalTransformer
from plprune.nodes import find_nodes

VOCABULARY, TOKENS, FEATURES, LAYERS, HEADS, WIDTH = 32768, 64, 128, 2, 4, 512
BATCH = 64
GIGABYTES, STEPS = 3.0, 20.0  # What a gate update may take.


def main(repeats: int) -> int:
    """Print the numbers; 1 where a gate update takes more than it may."""
    module = CausalTransformer(VOCABULARY, TOKENS, FEATURES, LAYERS, HEADS, WIDTH, rngs=nnx.Rngs(0))
    model = functional(module)
    apply, params = stateless(model), model.params
    tokens = jax.random.randint(jax.random.key(0), (BATCH, TOKENS), 0, VOCABULARY)
    begin = resident()
    update, compiled = program(*_gate_update(apply, params), tokens)
    jax.block_until_ready(update())
    peak = resident()
    step, step_compiled = program(*_training_step(apply, params), tokens)
    spent, plain = seconds([update, step], repeats)
    say(
        f"vocabulary {VOCABULARY:,}, {LAYERS} layers of width {FEATURES}, {TOKENS} tokens, {BATCH} "
        f"sequences\n"
        f"  gate update   {spent:6.2f} s, {compiled:5.1f} s to compile, peak {peak:.2f} GB "
        f"resident ({begin:.2f} before)\n"
        f"  training step {plain:6.2f} s, {step_compiled:5.1f} s to compile, peak of both "
        f"{resident():.2f} GB\n"
        f"  a gate update is {spent / plain:.2f} training steps"
    )
    return int(peak > GIGABYTES or spent > STEPS * plain)


def _gate_update(apply, params):
    """One update of every gate, all else as it is."""
    groups = find_nodes(apply, params, jnp.zeros((2, TOKENS), int))
    gating = pl_gating(
        optax.set_to_zero(), apply, groups, keep_fraction=0.5, key=jax.random.key(1),
        initial_updates=1, period=1, probe_size=BATCH,
    )  # fmt: skip

    def update(carry, tokens):
        params, state = carry
        still = jax.tree.map(jnp.zeros_like, params)
        return gating.update(still, state, params, probe=tokens)[1]

    return update, (params, gating.init(params))


def _training_step(apply, params):
    """Adam on the loss of the next token."""
    optimizer = optax.adam(1e-3)

    def risk(params, tokens):
        return jnp.mean(cross_entropy(apply(params, tokens), jnp.roll(tokens, -1, axis=1)))

    def step(carry, tokens):
        params, state = carry
        updates, state = optimizer.update(jax.grad(risk)(params, tokens), state, params)
        return optax.apply_updates(params, updates), state

    return step, (params, optimizer.init(params))


def program(function: Callable, *arguments: Any) -> tuple[Callable[[], Any], float]:
    """A call of a compiled function, and the seconds that it took to compile."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: compiled(*arguments), time.perf_counter() - start


def resident() -> float:
    """The largest resident memory of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
