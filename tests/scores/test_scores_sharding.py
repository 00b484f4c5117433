# SPDX-License-Identifier: Apache-2.0
"""Scores of what is spread over data and model axes are those of one device; gates in processes."""

from devices import printed_by, printed_on

PROGRAM = """
from functools import partial
import jax, jax.numpy as jnp, numpy as np, optax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from plprune.gating import pl_gating
from plprune.losses import cross_entropy
from plprune.nodes import find_nodes, keep_top
from plprune.scores import Probe, activation, node_lambda_max, snip, streamed, taylor

def apply(p, tokens):
    x = p["table"][tokens]
    x = x + jnp.cumsum(jnp.tanh(x @ p["up"]), 1) @ p["down"]
    return x @ p["head"]

rng, key = np.random.default_rng(0), jax.random.key(0)
shapes = {"table": (32, 8), "up": (8, 12), "down": (12, 8), "head": (8, 32)}
params = {n: (rng.normal(size=s) / s[0] ** 0.5).astype(np.float32) for n, s in shapes.items()}
tokens = rng.integers(0, 32, (16, 4))
labels = np.roll(tokens, -1, 1)
groups = find_nodes(apply, params, tokens)
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
specs = {"table": P("model"), "up": P(None, "model"), "down": P("model"), "head": P(None, "model")}

def spread(array, spec):
    array = np.asarray(array)
    placed = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, placed, lambda where: array[where])

one = params, tokens, labels
many = {n: spread(p, specs[n]) for n, p in params.items()}, *(spread(a, P("data")) for a in one[1:])

def gates(apply, params, groups, probe):
    tx = pl_gating(optax.sgd(0.1), apply, groups, keep_fraction=0.5, key=key, initial_updates=2,
                   probe_size=8)
    still = jax.tree.map(jnp.zeros_like, params)
    state = tx.update(still, jax.jit(tx.init)(params), params, probe=probe.inputs)[1]
    expected = keep_top({n: fetched(g) for n, g in state.gates.items()}, groups, 0.5)
    for name, kept in expected.items():
        assert (fetched(state.keep[name]) == np.asarray(kept)).all()
    return state.gates

def fetched(array):
    return np.asarray(array if array.is_fully_addressable else process_allgather(array, tiled=True))

# GRADED
for score in SCORES:
    def of(params, inputs, labels):
        found = score(apply, params, groups, Probe(inputs, labels, cross_entropy, key))
        return {name: fetched(values) for name, values in found.items()}

    alone, spread_out = of(*one), of(*many)
    assert alone.keys() == spread_out.keys()
    for name, values in alone.items():
        np.testing.assert_allclose(spread_out[name], values, rtol=1e-5, atol=1e-5 * values.max())
    for fraction in (0.25, 0.5):
        kept = [keep_top(found, groups, fraction) for found in (alone, spread_out)]
        assert all((kept[0][name] == kept[1][name]).all() for name in alone)
assert len(many[1].sharding.device_set) == 4
print("equal")
"""


def streamed(score: str) -> str:
    return f"partial(streamed, {score}, microbatch=4)"


def comparing(*scores: str) -> str:
    return PROGRAM.replace("# GRADED", f"SCORES = ({', '.join(scores)},)")


def test_four_devices_score_as_one():
    program = comparing("activation", "snip", streamed("taylor"), "node_lambda_max")
    assert printed_on(4, program) == "equal"


def test_two_processes_of_two_devices_score_as_one():
    program = comparing(streamed("activation"), "gates")
    assert [p.splitlines()[-1] for p in printed_by(2, program, devices=2)] == ["equal", "equal"]
