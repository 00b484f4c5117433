# SPDX-License-Identifier: Apache-2.0
"""Seconds to the first and to the second number of a fresh process.

Arguments: MODEL:TASK ARRAYS RESULT REPEATS; only two calls are timed, whatever REPEATS says. The
clock starts when everything is imported, the model defined and, for a gate update, the groups of
nodes found; so it counts the start of the device, tracing, compilation and the computation. The
second number is that of other parameters, as at a notebook's next checkpoint.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from clock import arrays
from networks import jacobian_kernel, net, transformer

MODEL, TASK = sys.argv[1].split(":")
data = arrays()
inputs = data.pop("x")
data.pop("y", None)


def model():
    """`apply` and the parameters, as arrays of NumPy."""
    if MODEL in ("mlp", "cnn", "transformer"):
        return (transformer if MODEL == "transformer" else net), data
    from benchmarks.modules import drawn, in_evaluation
    from plprune.models import MLP, ResNet

    def readme(rngs):
        return MLP(64, (128, 128), 10, activation="tanh", rngs=rngs)

    made = {"resnet20": lambda rngs: ResNet(rngs=rngs), "readme": readme}
    return in_evaluation(drawn(made[MODEL]))


def measure():
    """Both ends of the kernel and their ratio."""
    from plprune import measure

    return lambda p, x: measure(apply, p, x)


def kernel():
    """The tangent kernel."""
    from plprune import tangent_kernel

    return lambda p, x: tangent_kernel(apply, p, x)


def gates():
    """One gate update on all examples, within a step of the transformation."""
    import optax

    from plprune import find_nodes, pl_gating

    groups = find_nodes(apply, params, inputs[:2])
    options = {"keep_fraction": 0.5, "initial_updates": 1, "period": 1, "probe_size": len(inputs)}
    gating = pl_gating(optax.sgd(1e-3), apply, groups, key=jax.random.key(0), **options)
    zeros, states = jax.tree.map(np.zeros_like, params), []

    def call(p, x):
        state = states[-1] if states else gating.init(p)
        states.append(gating.update(zeros, state, p, probe=x)[1])
        return states[-1].gates

    return call


def nodes():
    """The groups of nodes; nothing is computed on the device."""
    from plprune import find_nodes

    def call(p, x):
        find_nodes(apply, p, x[:2])

    return call


def jacrev():
    """The kernel by vmap(jacrev) and one product."""
    return jax.jit(lambda p, x: jacobian_kernel(apply, p, x))


apply, params = model()
tasks = {"measure": measure, "kernel": kernel, "gates": gates, "nodes": nodes, "jacrev": jacrev}
number = tasks[TASK]()
moved = jax.tree.map(lambda leaf: np.asarray(1.01 * leaf, leaf.dtype), params)
seconds = []
for checkpoint in (params, moved):
    start = time.perf_counter()
    jax.block_until_ready(number(jax.tree.map(jnp.asarray, checkpoint), jnp.asarray(inputs)))
    seconds.append(time.perf_counter() - start)
np.save(sys.argv[3], np.asarray(seconds))
sys.stdout.write(json.dumps({"first": seconds[0], "second": seconds[1]}))
