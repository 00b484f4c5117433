# SPDX-License-Identifier: Apache-2.0
"""Gating over four host devices, along the data and along the model, in a process of its own."""

from devices import printed_on

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from plprune.gating import pl_gating
from plprune.losses import cross_entropy
from tests.gating.cases import GROUPS, KEY, PARAMS, apply

assert len(jax.devices()) == 4
inputs = jax.random.normal(jax.random.key(2), (16, 3))
labels = jnp.arange(16) % 2
tx = pl_gating(optax.adam(0.01), apply, GROUPS, keep_fraction=0.5, key=KEY, initial_updates=2,
               period=1)

@jax.jit
def step(params, state, inputs, labels):
    loss = lambda p: jnp.mean(cross_entropy(apply(p, inputs), labels))
    updates, state = tx.update(jax.grad(loss)(params), state, params, probe=inputs)
    return optax.apply_updates(params, updates), state

mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
specs = {"in": P(None, "model"), "a": P("model"), "mid": P("model"), "b": P(), "out": P("model"),
         "c": P()}
results = []
for is_spread in (False, True):
    data = (inputs, labels)
    params, state = PARAMS, tx.init(PARAMS)
    if is_spread:
        data = jax.device_put(data, NamedSharding(mesh, P("data")))
        placed = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
        state = jax.device_put(state, NamedSharding(mesh, P()))
        params = jax.device_put(params, placed)
    for _ in range(2):
        params, state = step(params, state, *data)
    results.append((params, state.gates, state.keep))
one, four = (jax.tree.map(np.asarray, r) for r in results)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, four)
jax.tree.map(np.testing.assert_array_equal, one[2], four[2])
print("equal")
"""


def test_four_devices_gate_as_one():
    assert printed_on(4, SCRIPT) == "equal"
