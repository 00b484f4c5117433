# SPDX-License-Identifier: Apache-2.0
"""Later plain calls of a public function against the same call under jax.jit, and what compiles.

Arguments: FUNCTION ARRAYS RESULT REPEATS.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from clock import arrays
from networks import net

import plprune
from plprune import scores
from plprune.losses import cross_entropy, risk

NAME, EVENT = sys.argv[1], "/jax/core/compile/backend_compile_duration"
# One function written twice, as a notebook's cell that is run again writes it.
MODELS = (lambda p, x: net(p, x)), (lambda p, x: net(p, x))
OBJECTIVES = (
    (lambda p, batch: risk(cross_entropy, net(p, batch[0]), batch[1])),
    (lambda p, batch: risk(cross_entropy, net(p, batch[0]), batch[1])),
)
data = arrays()
inputs, labels = jnp.asarray(data.pop("x")), jnp.asarray(data.pop("y"))
compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: compilations.append(event) if event == EVENT else None
)


def calls():
    """The plain call on parameters and data, with the function first written and written again."""
    key = jax.random.key(0)
    if NAME == "lipschitz_constant":
        return [_lipschitz(objective, key) for objective in OBJECTIVES]
    if NAME in scores.__all__:
        groups = plprune.find_nodes(net, data, inputs[:2])
        return [_score(getattr(scores, NAME), model, groups, key) for model in MODELS]
    return [_measure(getattr(plprune, NAME), model) for model in MODELS]


def _measure(function, model):
    return lambda p, x, _: function(model, p, x)


def _lipschitz(objective, key):
    return lambda p, x, y: plprune.lipschitz_constant(objective, p, (x, y), key=key)


def _score(score, model, groups, key):
    return lambda p, x, y: score(model, p, groups, scores.Probe(x, y, cross_entropy, key))


def seconds(call, params):
    """Of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call(params, inputs, labels))
    return time.perf_counter() - start


def compiled_in(call, params):
    """Backend compilations of one call."""
    compilations.clear()
    seconds(call, params)
    return len(compilations)


params, moved = (
    {name: jnp.asarray(np.asarray(scale * a, a.dtype)) for name, a in data.items()}
    for scale in (1, 1.01)
)
plain, again = calls()
jitted = jax.jit(plain)
first = seconds(plain, params)
counts = {
    "same": compiled_in(plain, params),
    "again": compiled_in(again, params),
    "moved": compiled_in(plain, moved),
}
seconds(jitted, params)
pairs = [(seconds(plain, params), seconds(jitted, params)) for _ in range(int(sys.argv[4]))]
medians = np.median(pairs, axis=0)
np.save(sys.argv[3], medians)
numbers = {"first": first, "plain": medians[0], "jitted": medians[1], "compilations": counts}
sys.stdout.write(json.dumps(numbers))
