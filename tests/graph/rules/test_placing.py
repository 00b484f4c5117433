# SPDX-License-Identifier: Apache-2.0
"""Functions that spread their activations over devices, on more devices than one."""

from devices import printed_on

PROGRAM = """
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from plprune.nodes import find_nodes, mask, resize, shrink

draws = np.random.default_rng(0)
params = {"a": draws.normal(size=(4, 6)), "o": draws.normal(size=(6, 2))}
params, inputs = jax.tree.map(jnp.asarray, params), jnp.asarray(draws.normal(size=(4, 4)))

def mesh_of(kind):
    return jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(kind,) * 2)

def constrained(p, x):
    spread = lambda h: jax.lax.with_sharding_constraint(
        h, NamedSharding(mesh_of(AxisType.Auto), P(P.UNCONSTRAINED, ("columns",))))
    return jnp.tanh(x @ spread(p["a"])) @ p["o"]

def resharded(p, x):
    h = jax.sharding.reshard(jnp.tanh(x @ p["a"]), P(None, "columns"))
    return jax.sharding.reshard(h * 2, P(None, None)) @ p["o"]

for kind, apply in ((AxisType.Auto, constrained), (AxisType.Explicit, resharded)):
    with jax.set_mesh(mesh_of(kind)):
        groups = find_nodes(apply, params, inputs)
        assert groups.prunable == {"a": 6} and groups["a"].gateable, groups
        assert not groups.dependence, groups
        for closed in ([2], [0, 5]):  # Five nodes are too many or too few for two devices.
            keep = {"a": ~np.isin(np.arange(6), closed)}
            small = shrink(params, groups, keep)
            smaller = resize(apply, groups, keep)
            masked = apply(mask(params, groups, keep), inputs)
            for function in (smaller, jax.jit(smaller)):
                np.testing.assert_allclose(function(small, inputs), masked, rtol=1e-5)
        text = str(jax.make_jaxpr(smaller)(small, inputs))
        assert "columns" in text, text  # Where it is possible, they are spread as before.
"""


def test_nodes_that_no_longer_fill_the_devices_evenly_lie_on_all_of_them():
    printed_on(4, PROGRAM)
