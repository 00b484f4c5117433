# SPDX-License-Identifier: Apache-2.0
"""What the check of independent examples costs `plprune.tangent_kernel`, called without jit.

Arguments: plain ARRAYS RESULT REPEATS.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from clock import arrays, report
from networks import net

import plprune
from plprune.compilation import forget_compiled
from plprune.graph.independence import compared, read_batch, trace_single
from plprune.graph.tracing import trace

data = arrays()
x = jnp.asarray(data.pop("x"))
data.pop("y", None)
params = {name: jnp.asarray(a) for name, a in data.items()}
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
)


def first():
    """A call of a model that was not seen before: traced, checked and compiled."""
    forget_compiled()
    return kernel()


def kernel(**options):
    """A call as in a notebook, of a model that was."""
    return jax.block_until_ready(plprune.tangent_kernel(net, params, x, **options))


def median(call, repeats=21):
    """Seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def check():
    """All that a call does for the check: its two traces serve the kernel too."""
    return compared(read_batch(batch, len(x)), single)


def compilations():
    """Of the check: what a first call compiles without it, the same call with it does not add."""
    before = len(compiled)
    kernel()
    return len(compiled) - before


batch, single = trace(net, params, x), trace_single(net, params, x)
if check().outcome != "independent":
    raise SystemExit("the graphs do not prove the benchmark's own model")
kernel(independent=True)
added = compilations()
function = jax.jit(lambda p, x: plprune.tangent_kernel(net, p, x))
jax.block_until_ready(function(params, x))
report(
    first,
    np.asarray,
    check=lambda: median(check),
    later=lambda: median(kernel),
    jitted=lambda: median(lambda: jax.block_until_ready(function(params, x))),
    added=added,
)
